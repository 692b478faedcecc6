"""Step groups are functions that share their weights and differ in nothing but scales and zero_points."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dq_toolchain.backends.common.qdq.tags import FIRST_TAG, site_of_tag, tag
from dq_toolchain.backends.coreml import lowering
from dq_toolchain.backends.coreml.package import (
    WEIGHT_FILE,
    function_names,
    load_spec,
    operations_of,
    packages_in,
)
from dq_toolchain.backends.coreml.runtime import device
from dq_toolchain.toolchain.errors import BackendError
from tests.backends.coreml.conftest import Converted, converted


def test_tags_are_distinct_fp16_numbers() -> None:
    tags = [tag(site) for site in range(2000)]
    assert len(set(tags)) == 2000
    assert [site_of_tag(one) for one in tags] == list(range(2000))
    assert FIRST_TAG + 2000 < 0x7C00  # below infinity


def test_doctor_finds_the_functions_in_the_package(half: Converted, tmp_path: Path) -> None:
    assert function_names(packages_in(half.program)) == ("steps_g0", "steps_g1")
    (tmp_path / "x.mlpackage").mkdir()
    with pytest.raises(BackendError, match=r"x\.mlpackage cannot be opened"):
        function_names(packages_in(tmp_path / "x.mlpackage"))


def test_interface_is_named(half: Converted) -> None:
    description = load_spec(half.program).description
    assert description.defaultFunctionName == "steps_g0"
    assert [function.name for function in description.functions] == ["steps_g0", "steps_g1"]
    for function in description.functions:
        assert [port.name for port in function.input] == ["sample", "timestep", "class_labels"]
        assert [port.name for port in function.output] == ["output"]
        assert device._inputs(description, function.name) == ["sample", "timestep", "class_labels"]


@pytest.mark.slow
def test_weights_are_there_once(tmp_path: Path) -> None:
    one = converted(tmp_path / "one", {}, steps=5, step_groups=1)
    five = converted(tmp_path / "five", {}, steps=5, step_groups=5)
    assert (one.program / WEIGHT_FILE).stat().st_size == (five.program / WEIGHT_FILE).stat().st_size
    offsets = [
        {
            argument.value.blobFileValue.offset
            for op in operations_of(function)
            for value in op.inputs.values()
            for argument in value.arguments
            if argument.value.WhichOneof("value") == "blobFileValue"
        }
        for function in load_spec(five.program).mlProgram.functions.values()
    ]
    assert len(offsets) == 5
    assert all(each == offsets[0] for each in offsets)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"quantize_outputs": True}], ids=["plain", "outputs"])
def test_a_program_that_cannot_be_copied_is_converted_group_by_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object]
) -> None:
    options = {"steps": 4, "step_groups": 2, "scheme": "affine"}
    copied = converted(tmp_path / "copied", settings, **options)

    def refuse(*_: object) -> None:
        raise BackendError("planted")

    monkeypatch.setattr(lowering, "split_into_functions", refuse)
    merged = converted(tmp_path / "merged", settings, **options)
    assert list(merged.functions) == list(copied.functions) == ["steps_g0", "steps_g1"]
    assert sorted(path.name for path in merged.program.parent.iterdir()) == [merged.program.name]
    assert (merged.program / WEIGHT_FILE).stat().st_size == (copied.program / WEIGHT_FILE).stat().st_size
    for k in (0, 3):
        name = list(merged.functions)[merged.artifact.group_of_step[k]]
        ours, theirs = (
            functions[name](merged.inputs(k))["output"] for functions in (merged.functions, copied.functions)
        )
        assert torch.equal(ours, theirs)
