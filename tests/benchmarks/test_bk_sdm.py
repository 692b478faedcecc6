"""The small Stable Diffusion's figures: what is read of the C++ program, and the folders that it draws with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from benchmarks.bk_sdm import whole, write_inputs
from benchmarks.bk_sdm_bundle import PLACES, make_float, of_steps
from benchmarks.bk_sdm_cpp import of_other_steps, read_line, size_of
from benchmarks.bk_sdm_programs import PARTS

from dq_toolchain.toolchain.formats.bundle import RANGES, Bundle
from tests.api.conftest import drawn

__all__ = ["drawn"]
LINE = "picture.png: 512 x 512, 20 steps, guidance 7.5, seed 0; 61.9 s, of them 55.2 s in the network; peak memory 1022 MiB\n"


def test_the_line_of_dq_generate_is_read() -> None:
    assert read_line(LINE) == {"seconds": 61.9, "network": 55.2, "memory": 1022 * 2**20}
    with pytest.raises(ValueError, match="said 'no picture'"):
        read_line("no picture")


def test_the_line_is_what_the_program_prints() -> None:
    source = (Path(__file__).parents[2] / "runtime_samples" / "cpp_core" / "src" / "generate.cpp").read_text()
    assert "; %.1f s, of them %.1f s in the network; peak memory %lld MiB" in source


def test_a_picture_is_its_calls() -> None:
    rows = [
        {"part": part, "kind": "float", "threads": 1, "size": size, "memory": size, "seconds": seconds}
        for part, size, seconds in (("text encoder", 10, 0.5), ("network", 20, 2.0), ("decoder", 5, 3.0))
    ]
    found = whole(rows, "float", 1)
    assert (found["size"], found["memory"], found["seconds"]) == (35, 20, 2 * 0.5 + 40 * 2.0 + 3.0)


def test_other_steps_leave_the_bundle_as_it_was(drawn: Path, tmp_path: Path) -> None:
    bundle = drawn / "executorch"
    before = (bundle / "bundle.json").read_bytes()
    made = Bundle.load(of_other_steps(bundle, tmp_path / "longer", 20))
    assert (bundle / "bundle.json").read_bytes() == before
    assert made.table.calls == 20
    assert [k for steps in made.step_groups for k in steps] == list(range(20))
    assert len(made.step_groups) == len(Bundle.load(bundle).step_groups)


def test_other_programs_under_the_same_description(drawn: Path, tmp_path: Path) -> None:
    bundle, programs = drawn / "executorch", {part: tmp_path / f"{part}.pte" for part in PARTS}
    for part, path in programs.items():
        path.write_bytes(part.encode())
    make_float(bundle, tmp_path / "float", programs)
    made, original = Bundle.load(tmp_path / "float"), Bundle.load(bundle)
    assert {part: (tmp_path / "float" / place).read_text() for part, place in PLACES.items()} == {
        part: part for part in PARTS
    }
    assert [port.name for port in made.inputs] == [port.name for port in original.inputs if port.name != "ranges"]
    assert made.files.keys() == original.files.keys() - {RANGES}
    assert made.table == original.table
    assert size_of(tmp_path / "float") == sum(made.sizes.values()) + (tmp_path / "float" / "bundle.json").stat().st_size


def test_inputs_are_those_of_the_program(drawn: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(drawn / "executorch")
    write_inputs(drawn / "executorch", tmp_path)
    given = torch.load(tmp_path / "network.inputs", weights_only=True)
    assert [tuple(tensor.shape) for tensor in given] == [port.shape for port in bundle.inputs]
    ranges = bundle.ranges(drawn / "executorch")
    assert ranges is not None
    assert torch.equal(given[[port.name for port in bundle.inputs].index("ranges")], ranges[:1])
    assert of_steps(bundle, 4).table.calls == 4
