"""One part in integers: weights rounded to nearest per channel, ranges of what its layers take and give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dq_toolchain.toolchain.formats.bundle import Port
from dq_toolchain.toolchain.parts.part import Part, integer_layers, to_integers
from dq_toolchain.toolchain.quant.hooks import hooks

DTYPES = {torch.float32: "float32", torch.int64: "int64"}


@torch.no_grad()
def quantized(
    name: str,
    kind: str,
    config: Mapping[str, Any],
    options: Mapping[str, Any],
    module: nn.Module,
    calls: Sequence[Mapping[str, Tensor]],
    outputs: Sequence[str],
) -> Part:
    """The part that a module with FP32 weights becomes.

    Args:
        calls: inputs by name, in the order of the module's arguments; ranges are the extremes over all of them.
        outputs: names of what the module returns.
    """
    names = integer_layers(module)
    ranges: dict[str, Tensor] = {}

    def watch(layer: str) -> Any:
        def look(_module: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
            taken = given[0] if given[0].is_floating_point() else torch.zeros(1)  # tokens, which no arithmetic meets
            found, old = torch.stack([*taken.float().aminmax(), *result.float().aminmax()]), ranges.get(layer)
            if old is not None:
                low, high = torch.minimum(found, old), torch.maximum(found, old)
                found = torch.stack([low[0], high[1], low[2], high[3]])
            ranges[layer] = found

        return look

    with hooks(module.get_submodule(each).register_forward_hook(watch(each)) for each in names):
        results = [module(*call.values()) for call in calls]
    state, layers = module.state_dict(), {}
    for each in names:
        layers[each] = to_integers(state.pop(f"{each}.weight"))
    return Part(
        name=name,
        kind=kind,
        config=config,
        options=options,
        inputs=tuple(Port(n, DTYPES[x.dtype], tuple(x.shape)) for n, x in calls[0].items()),
        outputs=tuple(Port(n, "float32", tuple(x.shape)) for n, x in zip(outputs, results[0], strict=True)),
        layers=layers,
        float_parameters={n: value.detach().clone() for n, value in state.items()},
        ranges=ranges,
    )
