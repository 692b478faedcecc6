"""``recipe`` prints what a command line comes to, as a file that gives the same recipe."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dq_toolchain import backends
from dq_toolchain.calibrate.methods import effective
from dq_toolchain.toolchain.cli.entry import run_command
from dq_toolchain.toolchain.recipe.fields import all_settings
from dq_toolchain.toolchain.recipe.loading import load_recipe
from dq_toolchain.toolchain.recipe.sections import Recipe, with_targets

Printed = Callable[..., Recipe]


@pytest.fixture
def printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Printed:
    """What `recipe` prints, read as the file that it is."""

    def run(*arguments: str) -> Recipe:
        assert run_command(["recipe", *arguments]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        (tmp_path / "printed.toml").write_text(out)
        return load_recipe(tmp_path / "printed.toml", {}, sections=backends.sections())

    return run


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"calibrate": {"effort": "quick"}},
        {"quantize": {"weight_bits": 4, "keep_float": ("mid_block.*", 'a "b"')}, "sampler": {"clip": False}},
        {"calibrate": {"method": "qdiffusion"}},
    ],
    ids=["nothing", "effort", "bits", "method"],
)
def test_it_is_the_effective_recipe_of_the_flags(flags: dict[str, dict[str, object]], printed: Printed) -> None:
    arguments = []
    for values in flags.values():
        for key, value in values.items():
            several = value if isinstance(value, tuple) else (value,)
            arguments += ["--no-clip"] if key == "clip" else [
                text for each in several for text in (f"--{key.replace('_', '-')}", str(each))
            ]  # fmt: skip
    wanted = effective(load_recipe(None, flags, sections=backends.sections(), default_target=backends.DEFAULT))
    assert printed(*arguments).model_dump() == wanted.model_dump()


def test_a_file_and_flags_of_calibrate_and_of_export(printed: Printed, tmp_path: Path) -> None:
    (tmp_path / "dq.toml").write_text("[quantize]\nweight_bits = 6\nstep_groups = 4\n")
    found = printed("--recipe", str(tmp_path / "dq.toml"), "--step-groups", "2", "--step-groups-as", "methods")
    assert (found.quantize.weight_bits, found.quantize.step_groups) == (6, 2)
    assert found.model_dump()[backends.DEFAULT]["step_groups_as"] == "methods"


def test_a_precision_of_calibrate_and_one_of_export(printed: Printed) -> None:
    found = printed("--target", "tensorrt", "--precision", "fp32", "--precision", "bf16")
    assert found.run.precision == "bf16"
    assert found.model_dump()["tensorrt"]["precision"] == "fp32"
    assert printed("--target", "tensorrt", "--precision", "fp32").run.precision == "exact"


def test_every_setting_is_printed_with_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["recipe"]) == 0
    out = capsys.readouterr().out
    text = " ".join(line.removeprefix("# ") for line in out.splitlines())
    for setting in all_settings(with_targets(backends.sections())):
        assert f"[{setting.section}]" in out
        assert setting.description in text
        assert f"\n{setting.key} = " in out or f"\n# {setting.key} is not set" in out


def test_an_unknown_method_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["recipe", "--method", "magic"]) == 2
    assert "--method: got 'magic', allowed are accuquant" in capsys.readouterr().err


def test_it_waits_for_neither_torch_nor_a_vendor() -> None:
    script = (
        "import sys\nfrom dq_toolchain.toolchain.cli.entry import run_command\n"
        "codes = [run_command(line.split()) for line in ('recipe', 'targets', 'export --help')]\n"
        "slow = {'torch', 'diffusers', 'coremltools', 'onnx', 'executorch'} & set(sys.modules)\n"
        "sys.exit(f'{codes} {slow}' if any(codes) or slow else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_flags_of_export_alone_are_taken_too(printed: Printed) -> None:
    found = printed("--unet-only", "--image-to-image").export
    assert (found.unet_only, found.image_to_image) == (True, True)


def test_compare_takes_the_file_and_gets_as_far_as_its_own_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["recipe"]) == 0
    (tmp_path / "printed.toml").write_text(capsys.readouterr().out)
    assert run_command(["compare", "--recipe", str(tmp_path / "printed.toml"), "--held-out", "1"]) == 2
    assert capsys.readouterr().err.startswith("error: --held-out")
