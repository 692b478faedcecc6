"""torch.export and coreai-torch: from the network with Q/DQ to a program with one function.

Source: what was measured to work with coreai-torch 0.4.3 is in docs/COREAI.md.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dq_toolchain.backends.common.call import OUTPUT, Call, PositionalNetwork
from dq_toolchain.backends.common.qdq.entries import RangesInput
from dq_toolchain.backends.common.quiet import quiet
from dq_toolchain.backends.coreai.graph.without_effect import without_effect
from dq_toolchain.backends.coreai.vendor import NOISE, converter, operators
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.quant.step_vectors import take_vectors_as


class HalfInside(nn.Module):
    """A network in fp16 with float32 inputs and outputs.

    The sinusoids of the timestep stay in float32 whatever the precision, their angles reach 1000 radians. So does a row of step
    vectors, which may hold the timestep; its vectors become fp16 where they enter.
    """

    def __init__(self, whole: nn.Module) -> None:
        super().__init__()
        self.whole = whole
        take_vectors_as(whole, torch.float16)

    def forward(self, sample: Tensor, timestep: Tensor, *rest: Tensor) -> Tensor:
        others = (one.half() if one.is_floating_point() else one for one in rest)
        out: Tensor = self.whole(sample.half(), timestep, *others)
        return out.float()


@dataclass(frozen=True, kw_only=True)
class Callee:
    """A module that becomes a function: example inputs, and the names of inputs and outputs."""

    module: nn.Module
    arguments: Sequence[Tensor]
    function: str
    inputs: Sequence[str]
    outputs: Sequence[str]


def to_core_ai(*callees: Callee) -> Any:
    """The vendor's program of some functions. Raises whatever torch.export and coreai-torch raise."""
    operators()
    made = converter().TorchConverter(mode=converter().TorchConverter.Mode.RELEASE)
    with quiet(NOISE), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):  # a progress bar
        for one in callees:
            program = torch.export.export(one.module, tuple(one.arguments), strict=False)
            made.add_exported_program(
                without_effect(program.run_decompositions(converter().get_decomp_table())),
                entrypoint_name=one.function,
                input_names=list(one.inputs),
                output_names=list(one.outputs),
            )
        return made.to_coreai()


def convert(network: nn.Module, call: Call, half: bool, function: str, ranges: RangesInput | None = None) -> Any:
    """The vendor's program of one function.

    Args:
        network: from ``common.qdq.network.build``; it becomes fp16 where ``half`` asks for it.
        ranges: where the network looks for ``call.ranges``.
    Raises:
        BackendError: coreai-torch refuses the network.
    """
    whole: nn.Module = PositionalNetwork(network, tuple(call.conditioning), None if ranges is None else ranges.set)
    if half:
        whole = HalfInside(whole.half())
    callee = Callee(
        module=whole, arguments=call.arguments, function=function, inputs=tuple(call.named), outputs=(OUTPUT,)
    )
    return converted(callee, half, "this network")


def converted(callee: Callee, half: bool, what: str) -> Any:
    """The vendor's program of one function.

    Args:
        half: in fp16. what: for the text of an error.
    Raises:
        BackendError: coreai-torch refuses it.
    """
    try:
        return to_core_ai(callee)
    except (RuntimeError, NotImplementedError, ValueError, TypeError, KeyError, IndexError, AssertionError) as error:
        text = " ".join(str(error).split())
        raise BackendError(
            f"coreai-torch cannot convert {what}: {type(error).__name__} {text[:300]}; "
            f"{'try --precision fp32, or ' if half else ''}report it with the model's config.json"
        ) from error
