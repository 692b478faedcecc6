"""Weights whose scales fp16 does not hold: powers of two behind the products, read back by the audit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dq_toolchain.backends.common.powers import product_of
from dq_toolchain.backends.common.qdq.audit import audit
from dq_toolchain.backends.common.qdq.conformance import compare
from dq_toolchain.backends.coreml.graph.operators import OPERATORS
from dq_toolchain.backends.coreml.proof.reading import MILReader
from dq_toolchain.backends.coreml.runtime.forced import forced
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.quant.qparams import SMALLEST_SCALE, SMALLEST_WEIGHT_SCALE, fp16_exact
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork
from tests import tiny
from tests.backends.coreml.conftest import Converted, converted

LAYER = "mid_block.attentions.0.to_out.0"


@pytest.mark.parametrize("lut", [False, True])
def test_fp16_holds_every_part_of_a_scale(lut: bool) -> None:
    scale = fp16_exact(torch.logspace(-13, -1, 301), SMALLEST_WEIGHT_SCALE)
    own, factors = OPERATORS.scale_and_factors(scale, lut, half=True)
    for number in (own, *factors):
        assert torch.equal(number, number.half().float())
        assert float(number.min()) >= SMALLEST_SCALE
    assert torch.equal(own * product_of(factors), scale)


def test_fp32_and_large_scales_need_no_factors() -> None:
    scale = fp16_exact(torch.logspace(-13, -1, 301), SMALLEST_WEIGHT_SCALE)
    assert OPERATORS.scale_and_factors(scale, lut=False, half=False)[1] == ()
    own, factors = OPERATORS.scale_and_factors(fp16_exact(scale), lut=False, half=True)
    assert torch.equal(own, fp16_exact(scale))
    assert factors == ()


def test_a_table_of_zeros_has_no_factor_of_ones() -> None:
    assert OPERATORS.scale_and_factors(torch.full((4,), SMALLEST_SCALE), lut=True, half=True)[1] == ()
    assert OPERATORS.scale_and_factors(torch.full((4,), 0.25), lut=True, half=False)[1] == ()


@pytest.fixture(scope="module", params=["plain", "runtime", "neural-engine", "lut", "chunks"])
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    settings: dict[str, Any] = {
        "plain": {},
        "runtime": {"step_groups_as": "input"},
        "neural-engine": {"layout": "neural-engine"},
        "lut": {"lut": True},
        "chunks": {"chunks": 2},
    }
    bits = 4 if request.param == "lut" else 8
    unet = tiny.with_small_weights(tiny.tiny_unet())
    return converted(tmp_path_factory.mktemp("small"), settings[request.param], unet=unet, weight_bits=bits, steps=2)


@pytest.mark.slow
def test_every_form_computes_what_the_simulation_computes(small: Converted) -> None:
    name, program = small.function_of(0)
    found = compare(
        forced(program), small.audited.sites[name], small.artifact, SimulatedNetwork(small.artifact), 0, small.inputs(0)
    )
    assert found.largest <= 1
    assert found.output_error < 1e-2


@pytest.mark.slow
def test_a_factor_that_is_off_by_two_is_found(small: Converted) -> None:
    layer = small.artifact.layers[LAYER]
    for factor in (0.5, 2.0):  # the scale that the file holds beside the factor stays what it is
        other = replace(layer, weight_scale=layer.weight_scale * factor)
        artifact = replace(small.artifact, layers={**small.artifact.layers, LAYER: other})
        with pytest.raises(BackendError, match=f"the weight scales of {LAYER} differ"):
            audit(small.functions, artifact, small.plan.expected, MILReader())


@pytest.mark.slow
def test_small_weights_in_fp32_need_nothing(tmp_path: Path) -> None:
    unet = tiny.with_small_weights(tiny.tiny_unet())
    made = converted(tmp_path, {"precision": "fp32"}, unet=unet, steps=2)
    name, program = made.function_of(0)
    found = compare(
        forced(program), made.audited.sites[name], made.artifact, SimulatedNetwork(made.artifact), 0, made.inputs(0)
    )
    assert found.different == 0
    assert found.output_error < 1e-5
