"""Bad input is refused: exit code 2 and one line."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runtime_samples import damaged
from tests.runtime_samples.tensorrt.programs import GOLDEN, assert_refused, dq_run, module

DAMAGED = sorted(path.name for path in (GOLDEN / "damaged").iterdir())
CASE = GOLDEN / "ddim-guided"
Edit = Callable[[dict[str, Any]], object]


def edit_bundle(folder: Path, edit: Edit) -> None:
    path = folder / "bundle.json"
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    shutil.copytree(CASE / "bundle", tmp_path / "bundle")
    return tmp_path / "bundle"


def run(bundle: Path, *options: object) -> Any:
    return dq_run(
        "--bundle", bundle, "--report", bundle.parent / "report", "--replay", CASE / "replay.safetensors", *options
    )


@pytest.mark.parametrize("name", DAMAGED)
def test_every_damaged_file_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files, errors = module("safetensors_file", monkeypatch), module("errors", monkeypatch)
    path = GOLDEN / "damaged" / name
    with pytest.raises(errors.Refused) as caught:
        files.parse_json(path.read_bytes(), path) if path.suffix == ".json" else files.read_tensors(path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["too-deep.json", "tensor-beyond-the-file.safetensors"])
def test_damaged_files_end_the_program(name: str, bundle: Path) -> None:
    target = "bundle.json" if name.endswith("json") else "reference.safetensors"
    shutil.copy(GOLDEN / "damaged" / name, bundle / target)
    if target != "bundle.json":
        digest = hashlib.sha256((bundle / target).read_bytes()).hexdigest()
        edit_bundle(bundle, lambda data: data["files"].update({target: digest}))
    assert_refused(run(bundle), target, "damaged")
    assert not (bundle.parent / "report").exists()


@pytest.mark.parametrize("name", damaged.listed(damaged.FOR_ALL))
def test_damaged_bundles_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundles, references, errors = (module(part, monkeypatch) for part in ("bundle", "reference", "errors"))
    bundle = damaged.laid_out(damaged.FOR_ALL, name, tmp_path)
    with pytest.raises(errors.Refused) as caught:
        references.read_reference(bundles.read_bundle(bundle, "golden"))
    text = str(caught.value).replace(str(bundle), "")
    assert len(text.splitlines()) == 1
    assert len(text) < 1000
    assert "\x1b" not in text
    assert ("correction" in text) == ("correction" in name)


@pytest.mark.parametrize("name", damaged.ON_DISK)
def test_what_is_no_file_is_refused(name: str, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundles, errors = (module(part, monkeypatch) for part in ("bundle", "errors"))
    damaged.ON_DISK[name](bundle)
    with pytest.raises(errors.Refused):
        bundles.read_bundle(bundle, "golden")


def test_another_target_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundles, errors = (module(part, monkeypatch) for part in ("bundle", "errors"))
    with pytest.raises(errors.Refused, match="target is 'golden', this program takes 'tensorrt'"):
        bundles.read_bundle(bundle, "tensorrt")


def test_a_damaged_correction_ends_the_program(tmp_path: Path) -> None:
    case = GOLDEN / "ddim-corrected"
    copied = Path(shutil.copytree(case / "bundle", tmp_path / "bundle"))
    damage = GOLDEN / "damaged-bundles" / "ddim-corrected" / "correction-channel-missing-in-all"
    shutil.copy(damage / "bundle.json", copied / "bundle.json")
    done = dq_run("--bundle", copied, "--report", tmp_path / "report", "--replay", case / "replay.safetensors")
    assert_refused(done, "correction must have a number for each channel of the sample, [1, 3, 6, 6], got 2")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value but the value itself; of long lists the first."""
    items = value.items() if isinstance(value, dict) else list(enumerate(value))[:2] if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


@pytest.mark.parametrize("case", ["ddim-guided", "ddim-corrected"])
@pytest.mark.parametrize(
    "odd", [None, -1, 3.5, 10**400, True, "x", "", [], [[]], {}], ids=lambda value: repr(value)[:12]
)
def test_odd_values_anywhere_are_refused_or_do_not_matter(
    odd: Any, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Path(shutil.copytree(GOLDEN / case / "bundle", tmp_path / "bundle"))
    bundles, references, errors = (module(part, monkeypatch) for part in ("bundle", "reference", "errors"))
    good = json.loads((bundle / "bundle.json").read_text())
    unused = {"form", "model_id", "weight_hash", "versions", "limits", "operations", "sites", "sizes", "content_sha256"}
    said = []
    for path in [path for path in places(good) if path[0] not in unused]:
        data = copy.deepcopy(good)
        at = data
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = odd
        (bundle / "bundle.json").write_text(json.dumps(data))
        try:
            references.read_reference(bundles.read_bundle(bundle, "golden"))
        except errors.Refused as error:
            said.append(str(error))
    assert len(said) > 20
    assert all(len(text.splitlines()) == 1 for text in said)


@pytest.mark.parametrize(("options", "text"), [
    (("--seeds", "0"), "--seeds must be 1-3"), (("--seeds", "4"), "--seeds must be 1-3"), (("--seeds", "x"), "invalid int value"),
    (("--teacher-forced", "maybe"), "invalid choice"), (("--unknown",), "unrecognized arguments"),
])  # fmt: skip
def test_command_line(
    options: tuple[str, ...],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program = module("dq_run", monkeypatch)
    given = ["--bundle", str(CASE / "bundle"), "--report", str(tmp_path), "--replay", str(CASE / "replay.safetensors")]
    assert program.main([*given, *options]) == 2
    said = capsys.readouterr().err
    assert text in said
    assert len(said.splitlines()) == 1


def test_no_arguments_and_no_bundle(tmp_path: Path) -> None:
    assert_refused(dq_run(), "required: --bundle, --report")
    assert_refused(dq_run("--bundle", tmp_path / "none", "--report", tmp_path), "cannot read", "bundle.json")


def test_a_report_folder_that_is_a_file(bundle: Path) -> None:
    (bundle.parent / "report").write_text("")
    assert_refused(run(bundle), "cannot write the report")


def test_other_golden_vectors(bundle: Path, tmp_path: Path) -> None:
    done = dq_run("--bundle", bundle, "--report", tmp_path / "r", "--replay", bundle / "reference.safetensors")
    assert_refused(done, "must hold inputs, outputs and timesteps")
