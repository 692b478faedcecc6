"""The form table of docs/QNN.md, compiled and executed: what the lint promises, and why it refuses the rest."""

from __future__ import annotations

import numpy as np
import pytest

from dq_toolchain.backends.qnn.graph.biases import DROPPED
from dq_toolchain.backends.qnn.htp.arithmetic import Sums
from dq_toolchain.toolchain.errors import BackendError
from tests.backends.qnn.htp.forms import FORMS, Compiled, compiled, moved

pytestmark = pytest.mark.qnn


def named(outcome: str) -> list[str]:
    return [name for name, (_, wanted) in FORMS.items() if wanted == outcome]


def made(name: str, soc: str = "SM8750") -> tuple[Compiled, Sums]:
    form = FORMS[name][0]()
    assert form.sums is not None
    return compiled(form, soc), form.sums


@pytest.mark.parametrize("name", named("integers"))
def test_a_form_that_is_taken_computes_what_is_known_of_the_chip(name: str) -> None:
    found, sums = made(name)
    assert all(tensor.is_integer for tensor in (*found.op.inputs, *found.op.outputs))
    assert found.op.outputs[0].dtype == found.op.inputs[0].dtype == found.form.dtype
    steps = found.steps(sums.as_computed)
    assert np.abs(steps).max() <= 1
    assert np.mean(steps != 0) < (0.01 if sums.wide else 0.03)
    assert abs(steps.mean()) < 0.02  # v68, the chip where none is named, truncates
    most = 2 * DROPPED * float(sums.ratio.max()) if sums.wide else 0
    assert np.abs(found.steps(sums.exact)).max() <= 1 + most


@pytest.mark.parametrize("name", ["Gemm uint16 weights of 4 bits", "Conv uint16 weights of 4 bits"])
def test_dropped_bits_are_seen_where_the_unit_of_weights_is_large(name: str) -> None:
    """Without the model of what is dropped these would be several steps off."""
    found, sums = made(name)
    assert np.abs(found.steps(sums.exact)).max() > 4


@pytest.mark.parametrize("name", named("refused"))
def test_a_form_that_is_refused(name: str) -> None:
    with pytest.raises(BackendError, match=r"^Qualcomm's compiler refuses the graph for SM8750: "):
        compiled(FORMS[name][0](), "SM8750")


@pytest.mark.parametrize("name", named("float"))
def test_a_form_that_silently_runs_in_float(name: str) -> None:
    found = compiled(FORMS[name][0](), "SM8750")
    assert not any(tensor.is_integer for tensor in (*found.op.inputs[:2], *found.op.outputs))


@pytest.mark.parametrize("name", named("wrong"))
def test_a_form_that_silently_gives_wrong_integers(name: str) -> None:
    found, sums = made(name)
    assert found.op.outputs[0].is_integer
    assert np.abs(found.steps(sums.as_computed)).max() > 50


def test_integers_that_were_moved_are_right_where_scales_or_nothing_differs() -> None:
    """fp16 between the two costs up to 16 steps."""
    form = moved(same=False)
    assert form.sums is not None
    assert np.abs(compiled(form, "SM8750").steps(form.sums.exact)).max() <= 16


@pytest.mark.parametrize("soc", ["SM8550", "SM8650", "SM8850"])
@pytest.mark.parametrize("name", ["Conv uint8", "Gemm uint16 weights of 4 bits", "MatMul of uint16 and uint8"])
def test_other_chips_compute_the_same(name: str, soc: str) -> None:
    found, sums = made(name, soc)
    assert np.abs(found.steps(sums.as_computed)).max() <= 1
