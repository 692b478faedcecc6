"""The units of block reconstruction, in order of execution: found by module type and by running the network once.

A unit is what is optimised together against its FP32 output: a residual block, an attention block, a transformer
block; every quantized layer outside those is a unit of its own (BRECQ's order, Li et al. 2021, as Q-Diffusion uses it).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from diffusers.models.attention_processor import Attention
from torch import nn

from dq_toolchain.calibrate.network.call_order import order_of_calls
from dq_toolchain.calibrate.network.fake_quant import QuantizedLayer
from dq_toolchain.toolchain.errors import CalibrationError
from dq_toolchain.toolchain.models.blocks import BLOCKS


@dataclass(frozen=True)
class Unit:
    """``name``: the module's dotted name. ``layers``: keys of ``QuantizedNetwork.layers``, in module order."""

    name: str
    layers: tuple[str, ...]


def find_units(network: nn.Module, run: Callable[[nn.Module], object]) -> tuple[Unit, ...]:
    """Units in the order in which ``run`` first reaches them; every quantized layer is in exactly one.

    Args:
        network: the network inside a QuantizedNetwork; parts of a split convolution belong to the block around it.
        run: calls the network once on a representative input.
    Raises:
        CalibrationError: the network never calls a unit; the text names it.
    """
    members = layers_by_unit(network)
    order = order_of_calls(network, members, run)
    idle = [name for name in members if name not in order]
    if idle:
        raise CalibrationError(
            f"the network never runs {', '.join(idle)}, so there is nothing to reconstruct them on; remove them from the "
            "model or check the conditioning"
        )
    return tuple(Unit(name, members[name]) for name in order)


def layers_by_unit(network: nn.Module) -> dict[str, tuple[str, ...]]:
    """Name of every unit -> its layers, both in module order."""
    blocks = [
        name for name, module in network.named_modules() if isinstance(module, BLOCKS) and not _has_two_outputs(module)
    ]
    members: dict[str, tuple[str, ...]] = {}
    for name, module in network.named_modules():
        if isinstance(module, QuantizedLayer):
            unit = _outermost(name, blocks)
            members[unit] = (*members.get(unit, ()), name)
    return members


def _has_two_outputs(module: nn.Module) -> bool:
    """Joint attention (SD3) attends to picture and text at once and returns both; its layers are units by themselves."""
    return isinstance(module, Attention) and module.added_kv_proj_dim is not None


def _outermost(layer: str, blocks: list[str]) -> str:
    """The outermost of ``blocks`` (in module order, parents first) that holds the layer, else the layer itself."""
    return next((block for block in blocks if layer.startswith(f"{block}.")), layer)
