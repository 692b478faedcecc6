"""The artifact comes back bit for bit, and nothing that was changed, cut or left half-written loads."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dq_toolchain.toolchain.disk import files
from dq_toolchain.toolchain.disk.files import read_tensors, seal, sha256, write_json, write_tensors
from dq_toolchain.toolchain.errors import ArtifactError, ToolchainError
from dq_toolchain.toolchain.formats.artifact import Artifact, LayerWeights, load_reference
from dq_toolchain.toolchain.formats.listing import JSON, TENSOR_FILES
from dq_toolchain.toolchain.formats.reference import FILE as REFERENCE
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork
from tests.tiny import noise
from tests.tiny_artifacts import tiny_artifact, tiny_reference

ALL = (*TENSOR_FILES, REFERENCE, JSON)


@pytest.fixture(scope="module")
def made() -> tuple[Artifact, Reference]:
    artifact, unet = tiny_artifact(scheme="affine", weight_bits=4)
    artifact = dataclasses.replace(artifact, guidance=2.0)
    return artifact, tiny_reference(artifact, unet)


@pytest.fixture(scope="module")
def saved(made: tuple[Artifact, Reference], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact") / "calibration"
    made[0].save(folder, made[1])
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "calibration"))


def same(first: object, second: object) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, LayerWeights) and isinstance(second, LayerWeights):
        return same(first.weight_q, second.weight_q) and same(first.weight_scale, second.weight_scale)
    if isinstance(first, dict) and isinstance(second, dict):
        return set(first) == set(second) and all(same(first[key], second[key]) for key in first)
    return first == second


def plain(config: Any) -> Any:
    return json.loads(json.dumps(dict(config)))


def test_every_field_comes_back_bit_equal(made: tuple[Artifact, Reference], saved: Path) -> None:
    artifact, loaded = made[0], Artifact.load(saved)
    for field in dataclasses.fields(Artifact):
        before, after = getattr(artifact, field.name), getattr(loaded, field.name)
        if field.name in ("config", "scheduler_config", "record"):
            before = plain(before)
        assert same(before, after), field.name


def test_the_reference_comes_back_bit_equal(made: tuple[Artifact, Reference], saved: Path) -> None:
    loaded = load_reference(saved)
    for field in dataclasses.fields(Reference):
        before, after = getattr(made[1], field.name), getattr(loaded, field.name)
        if field.name == "conditioning":
            assert same(dict(before.cond), after.cond)
            assert same(dict(before.uncond), after.uncond)
        else:
            assert same(before, after), field.name


@torch.no_grad()
def test_the_loaded_artifact_simulates_the_same_numbers(made: tuple[Artifact, Reference], saved: Path) -> None:
    outs = [
        SimulatedNetwork(artifact)(noise(2), torch.tensor([400.0, 4.0]), class_labels=torch.tensor([1, 2]))[0]
        for artifact in (made[0], Artifact.load(saved))
    ]
    assert torch.equal(*outs)


def test_saving_twice_gives_the_same_bytes(made: tuple[Artifact, Reference], saved: Path, tmp_path: Path) -> None:
    made[0].save(tmp_path, made[1])
    assert {name: sha256(tmp_path / name) for name in ALL} == {name: sha256(saved / name) for name in ALL}
    assert sorted(p.name for p in saved.iterdir()) == sorted(ALL)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("place", [0.02, 0.5, 0.999])
def test_one_flipped_byte_is_found_in_every_file(name: str, place: float, folder: Path) -> None:
    data = bytearray((folder / name).read_bytes())
    data[int(place * len(data))] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(ArtifactError, match=rf"/{name}.*calibrate"):
        Artifact.load(folder)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty"])
def test_a_missing_or_cut_file_is_named(name: str, damage: str, folder: Path) -> None:
    data = (folder / name).read_bytes()
    (folder / name).unlink()
    if damage != "missing":
        (folder / name).write_bytes(data[: len(data) // 2] if damage == "truncated" else b"")
    with pytest.raises(ArtifactError, match=rf"/{name}.*calibrate"):
        Artifact.load(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("guidance", 7.5),
        ("step_groups", [[0], [1, 2, 3]]),
        ("sites", []),
        ("weight_hash", "f" * 64),
        ("files", {}),
        ("splits", {}),
    ],
)
def test_an_edited_json_is_refused_whatever_was_edited(key: str, value: object, folder: Path) -> None:
    data = json.loads((folder / JSON).read_text())
    (folder / JSON).write_text(json.dumps(data | {key: value}))
    with pytest.raises(ArtifactError, match=r"/calibration\.json was changed after it was written"):
        Artifact.load(folder)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_schema_version_is_refused_before_anything_else(version: object, folder: Path) -> None:
    data = json.loads((folder / JSON).read_text())
    (folder / JSON).write_text(json.dumps(data | {"schema_version": version}))
    with pytest.raises(ArtifactError, match=r"/calibration\.json: schema_version .* is not supported, allowed 1"):
        Artifact.load(folder)


def resealed(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """The folder with other content and correct hashes, as another program would write it."""
    data = json.loads((folder / JSON).read_text())
    change(data)
    data["files"] = {name: sha256(folder / name) for name in data["files"]}
    write_json(folder / JSON, seal(data))


JSON_MISTAKES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no table": lambda d: d.pop("table"),
    "table without a row": lambda d: d["table"]["a"].pop(),
    "step missing in the groups": lambda d: d["step_groups"][0].pop(),
    "site without a name": lambda d: d["sites"][0].pop("layer"),
    "guidance is text": lambda d: d.update(guidance="much"),
    "a list for a site": lambda d: d["sites"].__setitem__(0, []),
    "a site too many": lambda d: d["sites"].append(d["sites"][0]),
    "bits out of range": lambda d: d["sites"][0].update(bits=9),
    "weight bits out of range": lambda d: d["sites"][0].update(weight_bits=16),
    "bits are text": lambda d: d["sites"][0].update(bits="8"),
    "unknown scheme": lambda d: d["sites"][0].update(scheme="odd"),
    "unknown layer": lambda d: d["sites"][0].update(layer="nowhere"),
}


@pytest.mark.parametrize("mistake", JSON_MISTAKES)
def test_inconsistent_content_with_correct_hashes_is_refused(mistake: str, folder: Path) -> None:
    resealed(folder, JSON_MISTAKES[mistake])
    with pytest.raises(ArtifactError, match=r"calibration.*calibrate"):
        Artifact.load(folder)


TENSOR_MISTAKES: dict[str, tuple[str, Callable[[dict[str, Tensor]], object], str]] = {
    "scale that is not fp16": ("activations", lambda t: t["scale"][0].__setitem__(3, 0.1), "fp16-exact"),
    "scale of zero": ("activations", lambda t: t["scale"][0].__setitem__(3, 0.0), "fp16-exact"),
    "NaN scale": ("activations", lambda t: t["scale"][0].__setitem__(3, float("nan")), "fp16-exact"),
    "infinite scale": ("activations", lambda t: t["scale"][0].__setitem__(3, float("inf")), "fp16-exact"),
    "zero_point out of range": (
        "activations",
        lambda t: t["zero_point"][1].__setitem__(2, 128),
        r"outside -128\.\.127",
    ),
    "scale of another shape": ("activations", lambda t: t.update(scale=t["scale"][:, 1:].contiguous()), "have shape"),
    "no zero_point": ("activations", lambda t: t.pop("zero_point"), "zero_point"),
    "weight out of range": (
        "weights",
        lambda t: t["conv_in.weight_q"].view(-1).__setitem__(0, 8),
        r"conv_in .*outside -8\.\.7",
    ),
    "weights in float": ("weights", lambda t: t.update({"conv_in.weight_q": t["conv_in.weight_q"].float()}), "conv_in"),
    "weight scale not fp16": (
        "weights",
        lambda t: t["conv_in.weight_scale"].__setitem__(0, 0.3),
        "conv_in .*fp16-exact",
    ),
    "weight of another shape": (
        "weights",
        lambda t: t.update({"conv_in.weight_q": t["conv_in.weight_q"][:, :, :2].clone()}),
        "conv_in",
    ),
    "no weight scale": ("weights", lambda t: t.pop("conv_in.weight_scale"), "conv_in"),
    "no weight": ("weights", lambda t: (t.pop("conv_in.weight_q"), t.pop("conv_in.weight_scale")), "conv_in"),
    "no bias": ("float", lambda t: t.pop("conv_in.bias"), "conv_in.bias"),
    "bias of another shape": ("float", lambda t: t.update({"conv_in.bias": torch.zeros(3)}), "conv_in.bias"),
    "NaN in a bias": ("float", lambda t: t["conv_in.bias"].__setitem__(0, float("nan")), "conv_in.bias"),
}


@pytest.mark.parametrize("mistake", TENSOR_MISTAKES)
def test_tensors_that_a_device_could_not_hold_are_refused(mistake: str, folder: Path) -> None:
    name, change, message = TENSOR_MISTAKES[mistake]
    path = folder / f"{name}.safetensors"
    tensors = {key: tensor.clone() for key, tensor in read_tensors(path, "").items()}
    change(tensors)
    write_tensors(path, tensors)
    resealed(folder, lambda data: None)
    with pytest.raises(ArtifactError, match=message):
        Artifact.load(folder)


@pytest.mark.parametrize("failing", range(5))
def test_a_save_that_fails_leaves_the_older_one_whole(
    failing: int, made: tuple[Artifact, Reference], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = {path.name: path.read_bytes() for path in folder.iterdir()}
    count = iter(range(5))

    def full(_descriptor: int) -> None:
        if next(count) == failing:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)  # type: ignore[attr-defined]
    with pytest.raises(ToolchainError, match="No space left"):
        made[0].save(folder, made[1])
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == older
    Artifact.load(folder)


def test_what_the_record_cannot_hold_is_named(made: tuple[Artifact, Reference], tmp_path: Path) -> None:
    artifact = dataclasses.replace(made[0], record={"stages": [{"loss": 1.0}, {"loss": float("nan")}]})
    with pytest.raises(ToolchainError, match=r"calibration\.json: record\.stages\.1\.loss is NaN"):
        artifact.save(tmp_path / "calibration", made[1])
    assert list(tmp_path.iterdir()) == []


REFERENCE_MISTAKES: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "tensor missing": (lambda t: t.pop("fp32_latents"), "fp32_latents"),
    "tensor too many": (lambda t: t.update(more=torch.zeros(1)), "more"),
    "a step too few": (lambda t: t.update(fp32_latents=t["fp32_latents"][1:].contiguous()), "fp32_latents has shape"),
    "labels for fewer seeds": (
        lambda t: t.update({"cond.class_labels": t["cond.class_labels"][1:].contiguous()}),
        "class_labels",
    ),
    "no start": (lambda t: t.pop("start"), "start"),
    "step noise of another shape": (lambda t: t.update(step_noise=torch.zeros(2, 2)), "step_noise"),
    "a scalar label": (lambda t: t.update({"cond.class_labels": torch.tensor(1)}), "class_labels"),
}


@pytest.mark.parametrize("mistake", REFERENCE_MISTAKES)
def test_a_reference_that_does_not_fit_together_is_refused(mistake: str, saved: Path, tmp_path: Path) -> None:
    tensors = read_tensors(saved / REFERENCE, "")
    REFERENCE_MISTAKES[mistake][0](tensors)
    write_tensors(tmp_path / REFERENCE, tensors)
    with pytest.raises(ArtifactError, match=rf"/reference\.safetensors.*{REFERENCE_MISTAKES[mistake][1]}"):
        load_reference(tmp_path)
