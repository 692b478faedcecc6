"""Ranges of outputs and sites of results: they come back, older artifacts load, and what cannot be is refused."""

from __future__ import annotations

import dataclasses
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from dq_toolchain.toolchain.disk.files import read_tensors, sha256, write_tensors
from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.listing import JSON, TENSOR_FILES, Listing
from dq_toolchain.toolchain.formats.output_ranges import HIGH, LOW, OutputRanges, names_of
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.render.summary import inspect_folder, show_inspection
from tests.tiny_artifacts import tiny_artifact, tiny_reference, with_result_sites, with_wide_activations
from tests.toolchain.formats.test_artifact import resealed


def with_ranges(artifact: Artifact) -> Artifact:
    names = names_of(artifact.sites)
    ends = torch.arange(1.0, 1 + len(artifact.step_groups) * len(names)).view(-1, len(names))
    return dataclasses.replace(artifact, output_ranges=OutputRanges(names, -ends, ends / 2))


@pytest.fixture(scope="module")
def made() -> tuple[Artifact, Reference]:
    artifact, unet = tiny_artifact(attention=True)
    artifact = with_wide_activations(artifact)
    return artifact, tiny_reference(artifact, unet, seeds=1)


@pytest.fixture(scope="module")
def saved(made: tuple[Artifact, Reference], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranges") / "calibration"
    with_ranges(made[0]).save(folder, made[1])
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "calibration"))


def test_ranges_come_back_bit_equal_and_are_shown(made: tuple[Artifact, Reference], saved: Path) -> None:
    wanted, loaded = with_ranges(made[0]).output_ranges, Artifact.load(saved).output_ranges
    assert wanted is not None
    assert loaded is not None
    assert loaded.names == wanted.names
    assert torch.equal(loaded.low, wanted.low)
    assert torch.equal(loaded.high, wanted.high)
    shown = inspect_folder(saved)
    assert [row["output"] for row in shown["outputs"]] == list(wanted.names)
    ends = torch.stack([wanted.low, wanted.high], -1)
    assert [row["range"] for row in shown["outputs"]] == ends.transpose(0, 1).tolist()
    assert {site["activation_bits"] for site in shown["sites"]} == {8, 16}
    stream = io.StringIO()
    show_inspection(Console(width=250, file=stream), shown)
    said = stream.getvalue()
    assert "result of a product" in said
    assert all(name in said for name in wanted.names)


def test_they_change_nothing_else_and_without_them_an_artifact_is_what_it_was(
    made: tuple[Artifact, Reference], saved: Path, tmp_path: Path
) -> None:
    made[0].save(tmp_path, made[1])
    assert Artifact.load(tmp_path).output_ranges is None
    assert inspect_folder(tmp_path)["outputs"] == []
    activations, others = TENSOR_FILES[1], (TENSOR_FILES[0], TENSOR_FILES[2])
    assert {name: sha256(tmp_path / name) for name in others} == {name: sha256(saved / name) for name in others}
    tensors = read_tensors(tmp_path / activations, "")
    assert set(tensors) == {"scale", "zero_point"}
    more = read_tensors(saved / activations, "")
    assert set(more) == {*tensors, LOW, HIGH}
    assert all(torch.equal(more[name], tensor) for name, tensor in tensors.items())
    assert '"outputs"' not in (tmp_path / JSON).read_text()


def _change(name: str, change: Callable[[Tensor], object]) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: change(tensors[name])


MISTAKES: dict[str, tuple[Callable[[dict[str, Tensor]], object], Callable[[dict[str, Any]], object], str]] = {
    # what is done to activations.safetensors, to calibration.json, and what is said of it
    "NaN": (
        _change(LOW, lambda t: t[0].__setitem__(1, float("nan"))),
        lambda d: None,
        "range of .*step group 0 is nan",
    ),
    "infinite": (_change(HIGH, lambda t: t[1].__setitem__(0, float("inf"))), lambda d: None, "step group 1 .* to inf"),
    "ends swapped": (_change(LOW, lambda t: t[0].__setitem__(0, 99.0)), lambda d: None, "is 99.0 to"),
    "a product too few": (lambda t: t.update({LOW: t[LOW][:, 1:].contiguous()}), lambda d: None, "output_low is"),
    "integers": (lambda t: t.update({HIGH: t[HIGH].int()}), lambda d: None, "output_high is int32"),
    "one end only": (lambda t: t.pop(HIGH), lambda d: None, "output_high"),
    "no names": (lambda t: None, lambda d: d.pop("outputs"), "outputs"),
    "no tensors": (lambda t: (t.pop(LOW), t.pop(HIGH)), lambda d: None, "output_low"),
    "names in another order": (lambda t: None, lambda d: d["outputs"].reverse(), "outputs are not those of"),
    "names of inputs": (
        lambda t: None,
        lambda d: d["outputs"].__setitem__(0, "conv_in:input"),
        "outputs are not those",
    ),
    "a number for a name": (lambda t: None, lambda d: d["outputs"].__setitem__(0, 3), "outputs"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_ranges_that_cannot_be_are_refused_by_all_who_read_them(mistake: str, folder: Path) -> None:
    spoil, edit, said = MISTAKES[mistake]
    path = folder / TENSOR_FILES[1]
    tensors = {key: tensor.clone() for key, tensor in read_tensors(path, "").items()}
    spoil(tensors)
    write_tensors(path, tensors)
    resealed(folder, edit)
    for load in (Artifact.load, Listing.load):
        with pytest.raises(ArtifactError, match=rf"{said}.*calibrate"):
            load(folder)


SITES: dict[str, tuple[Callable[[dict[str, Any], dict[str, Tensor]], object], str]] = {
    "12 bits": (lambda d, t: d["sites"][0].update(bits=12), r"sites\.0\.bits"),
    "16 bits, affine": (lambda d, t: d["sites"][0].update(scheme="affine"), "16 bits with scheme 'affine'"),
    "16 bits, zero_point": (lambda d, t: t["zero_point"][0].__setitem__(0, 5), "conv_in:input, of 16 bits, is not 0"),
    "16 bits for a second operand": (
        lambda d, t: next(site for site in d["sites"] if site["operand"] == "k").update(bits=16),
        "operand 'k'",
    ),
    "16 bits of weights": (lambda d, t: d["sites"][0].update(weight_bits=16), r"sites\.0\.weight_bits"),
    "a subnormal scale": (lambda d, t: t["scale"][0].__setitem__(0, 2.0**-15), "conv_in:input is not fp16-exact"),
    "result of a layer that has no integers": (
        lambda d, t: next(site for site in d["sites"] if site["operand"] == "output").update(layer="nowhere"),
        "nowhere:output is the result of no product",
    ),
}


@pytest.mark.parametrize("mistake", SITES)
def test_sites_that_cannot_be_are_refused(mistake: str, made: tuple[Artifact, Reference], tmp_path: Path) -> None:
    with_result_sites(made[0]).save(tmp_path, made[1])
    Artifact.load(tmp_path)
    edit, said = SITES[mistake]
    path = tmp_path / TENSOR_FILES[1]
    tensors = {key: tensor.clone() for key, tensor in read_tensors(path, "").items()}
    resealed(tmp_path, lambda data: edit(data, tensors))
    write_tensors(path, tensors)
    resealed(tmp_path, lambda data: None)
    with pytest.raises(ArtifactError, match=said):
        Artifact.load(tmp_path)
