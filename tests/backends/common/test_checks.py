"""What targets demand of an artifact."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dq_toolchain import backends
from dq_toolchain.backends.common.checks import check_size, keeping_float
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.output_ranges import OutputRanges, names_of
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.quant.sites import layers_to_keep
from tests import tiny, tiny_artifacts


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Reference, Path]:
    """An artifact of a network that takes any size, with a reference of 7 x 10."""
    folder = tmp_path_factory.mktemp("odd")
    artifact, unet = tiny_artifacts.tiny_artifact(unet=tiny.tiny_condition_unet(), steps=2, step_groups=1)
    reference = tiny_artifacts.tiny_reference(artifact, unet, seeds=1)
    cut = {
        name: getattr(reference, name)[..., :7, :].repeat_interleave(2, -1)[..., :10].contiguous()
        for name in ("start", "fp32_latents", "simulation_latents", "simulation_outputs", "fp32_outputs_at_simulation")
    }
    reference = Reference(
        start=cut["start"],
        conditioning=reference.conditioning,
        step_noise=None,
        fp32_latents=cut["fp32_latents"],
        simulation_latents=cut["simulation_latents"],
        simulation_outputs=cut["simulation_outputs"],
        fp32_outputs_at_simulation=cut["fp32_outputs_at_simulation"],
    )
    artifact.save(folder, reference)
    return artifact, reference, folder


@pytest.mark.parametrize("target", [name for name in backends.names() if not backends.describe(name).any_size])
def test_sides_that_cannot_be_doubled_back_are_refused_at_once(
    target: str, odd: tuple[Artifact, Reference, Path], tmp_path: Path
) -> None:
    said: list[str] = []
    with pytest.raises(BackendError, match=r"7x10 are no multiple of 2.*such as 6x10 or 8x10.*lists with any size"):
        backends.load(target).lower(odd[0], odd[2], tmp_path / "bundle", backends.settings(target)(), said.append)
    assert said == []
    assert not (tmp_path / "bundle").exists()


def test_sides_that_differ_are_fine(odd: tuple[Artifact, Reference, Path]) -> None:
    reference = replace(odd[1], start=torch.zeros(1, 4, 6, 10))
    check_size(odd[0], reference, "coreml")


class Reached(Exception):
    """The target has said what it is about to do: nothing was refused."""


@pytest.fixture(scope="module")
def even(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Path]:
    """An artifact that every target takes."""
    folder = tmp_path_factory.mktemp("even")
    artifact, unet = tiny_artifacts.tiny_artifact(unet=tiny.small_unet(), steps=2, step_groups=1)
    artifact.save(folder, tiny_artifacts.tiny_reference(artifact, unet, seeds=1))
    return artifact, folder


def lowered(target: str, artifact: Artifact, folder: Path, out: Path) -> None:
    def say(_line: str) -> None:
        raise Reached

    backends.load(target).lower(artifact, folder, out, backends.settings(target)(), say)


OF_8_BITS = [name for name in backends.names() if backends.describe(name).activation_bits == (8,)]
"""Targets with float results; another one says in its own tests what it takes."""


@pytest.mark.parametrize("target", OF_8_BITS)
def test_what_no_program_holds_is_refused_by_name_before_any_work(
    target: str, even: tuple[Artifact, Path], tmp_path: Path
) -> None:
    artifact, folder = even
    wide = tiny_artifacts.with_wide_activations(artifact)
    with pytest.raises(
        BackendError, match=rf"8 for target '{target}', got 16 at site conv_in:input;.*--activation-bits 8"
    ):
        lowered(target, wide, folder, tmp_path / "bundle")
    results = tiny_artifacts.with_result_sites(artifact)
    with pytest.raises(
        BackendError, match=rf'{target}.*float.*integers at conv_in:output; .*outputs = "none" or "range"'
    ):
        lowered(target, results, folder, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("target", OF_8_BITS)
def test_ranges_of_outputs_are_no_reason_to_refuse(target: str, even: tuple[Artifact, Path], tmp_path: Path) -> None:
    artifact, folder = even
    names = names_of(artifact.sites)
    ends = torch.ones(len(artifact.step_groups), len(names))
    with pytest.raises(Reached):
        lowered(target, replace(artifact, output_ranges=OutputRanges(names, -ends, ends)), folder, tmp_path / "bundle")


NAMES = [
    "blocks.0.ff.conv_depth",
    "blocks.1.ff.conv_depth",
    "blocks.0.ff.conv",
    "blocks.1.ff.conv",
    "blocks.1.attn.to_out.0",
]


@pytest.mark.parametrize(
    ("wanted", "patterns"),
    [
        (NAMES[:2], '["*conv_depth"]'),
        (NAMES[:1], '["blocks.0.ff.conv_depth"]'),
        ([NAMES[1], NAMES[2], NAMES[3]], '["blocks.1.ff.conv_depth", "*conv"]'),
        (NAMES[4:], '["blocks.1.attn.to_out.0"]'),
    ],
)
def test_the_setting_keeps_the_wanted_layers_and_no_other(wanted: list[str], patterns: str) -> None:
    assert keeping_float(wanted, NAMES) == f"keep_float = {patterns} (--keep-float)"
    network = torch.nn.Module()
    for name in NAMES:
        place = network
        for part in name.split(".")[:-1]:
            place = place.get_submodule(part) if hasattr(place, part) else _added(place, part)
        place.add_module(name.rpartition(".")[2], torch.nn.Linear(1, 1))
    assert sorted(layers_to_keep(network, json.loads(patterns))) == sorted(wanted)


def _added(place: torch.nn.Module, part: str) -> torch.nn.Module:
    made = torch.nn.Module()
    place.add_module(part, made)
    return made
