"""Where a network leaves fp16: values beyond 65504 become infinite, and what they enter is lost.

What the calibration saw is in the artifact's record; what it did not look at, sums and concatenations between layers, scores of
attention, products in front of their powers of two, is found by running the network in float32 where the smoke test will run the
program, before anything is lowered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from dq_toolchain.backends.common.powers import SMALLEST_EXPONENT, factored
from dq_toolchain.backends.common.unpacked import unpacked_in_turn
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.quant.hooks import hooks
from dq_toolchain.toolchain.quant.layers import LAYERS, channel_shape
from dq_toolchain.toolchain.quant.qparams import FP16_LARGEST, activation_type
from dq_toolchain.toolchain.quant.time_path import TIMESTEP
from dq_toolchain.toolchain.sampler.denoiser import Denoiser


def check_known(artifact: Artifact, target: str) -> None:
    """Refuse fp16 for what the artifact itself says.

    Raises:
        BackendError: something is beyond fp16; the text names the layer and what to do.
    """
    refuse_beyond(known_beyond_fp16(artifact), target)


def check_by_running(artifact: Artifact, reference: Reference, target: str) -> None:
    """Refuse fp16 for values between layers.

    Raises:
        BackendError: a value is beyond fp16; the text names the layer or module and what to do.
    """
    refuse_beyond(beyond_fp16(artifact, reference), target)


def coarse_in_fp16(artifact: Artifact) -> str | None:
    """A line about layers kept in float all of whose weights are below fp16's normal numbers; None if there are none."""
    sizes = {name: float(artifact.float_parameters[f"{name}.weight"].abs().max()) for name in artifact.float_layers}
    small = [name for name, size in sizes.items() if 0 < size < 2.0**SMALLEST_EXPONENT]
    if not small:
        return None
    return f"weights so small that fp16 keeps few of their bits: {', '.join(small)}, kept in float; --precision fp32 keeps them all"


def known_beyond_fp16(artifact: Artifact) -> dict[str, float]:
    """Largest absolute values beyond fp16, by site, layer, parameter or step vector: those seen in calibration, scales, parameters
    and rows."""
    found: dict[str, float] = dict(artifact.record.get("beyond_fp16", {}))
    for index, site in enumerate(artifact.sites):
        scale = float(artifact.scale[:, index].max())
        if scale > FP16_LARGEST:
            found.setdefault(site.name, scale * activation_type(site.bits).qmax)
    for name, weights in artifact.layers.items():
        if float(weights.weight_scale.max()) > FP16_LARGEST:
            found.setdefault(f"{name}.weight", float(weights.dequantized().abs().max()))
    for name, tensor in artifact.float_parameters.items():
        if tensor.is_floating_point() and tensor.numel() and float(tensor.abs().max()) > FP16_LARGEST:
            found.setdefault(name, float(tensor.abs().max()))
    for name, values in () if artifact.step_vectors is None else artifact.step_vectors.columns():
        if name != TIMESTEP and float(values.abs().max()) > FP16_LARGEST:  # the timestep itself stays float32
            found.setdefault(name, float(values.abs().max()))
    return found


@torch.no_grad()
def beyond_fp16(artifact: Artifact, reference: Reference, of_products: bool = True) -> dict[str, float]:
    """Largest absolute values beyond fp16 by layer or module, in order of execution: of the first held-out seed at the first
    step of every step group.

    Args:
        of_products: look at what a product is before its factors and bias too, where a program has it in fp16.
    """
    network, table = unpacked_in_turn(artifact), artifact.table
    denoiser = Denoiser(network, table, reference.conditioning.select(slice(1)), artifact.guidance)
    growth = {name: factored(weights.weight_scale).growth for name, weights in artifact.layers.items() if of_products}
    groups = artifact.group_of_step
    with watched(network, growth) as found:
        for k in (groups.index(g) for g in range(max(groups) + 1)):
            denoiser(reference.simulation_latents[k][:1], k)
    return found


def refuse_beyond(found: Mapping[str, float], target: str, remedy: str = "add --precision fp32") -> None:
    """Raise BackendError if there is anything; the text names the first and what to do."""
    if not found:
        return
    (name, largest), more = next(iter(found.items())), len(found) - 1
    others = f" (and {more} more)" if more else ""
    raise BackendError(
        f"{name} reaches {largest:.3g}{others}, fp16 holds at most {FP16_LARGEST:.0f} and target {target!r} was "
        f"to compute in it; {remedy}"
    )


class _Watch(TorchFunctionMode):
    """Shows the tensors that every operation gives, and scores that attention keeps to itself."""

    def __init__(self, look: Callable[[Tensor], None]) -> None:
        super().__init__()
        self.look, self.aside = look, False

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))  # the mode is off in here
        if self.aside:
            return out
        if getattr(func, "__name__", "") == "scaled_dot_product_attention":
            named = dict(zip(("query", "key"), args, strict=False)) | (kwargs or {})
            for scores in _scores(named["query"], named["key"], named.get("scale")):
                self.look(scores)
        for each in out if isinstance(out, tuple | list) else (out,):
            if isinstance(each, Tensor):
                self.look(each)
        return out


def _scores(query: Tensor, key: Tensor, scale: float | None) -> Iterator[Tensor]:
    """Scores of attention, a head at a time: (B, H, T, C) and (B, H, U, C) -> (B, T, U)."""
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    for head in range(query.shape[1]):
        yield query[:, head] @ key[:, head].transpose(-1, -2) * factor


@contextmanager
def watched(
    network: nn.Module, growth: Mapping[str, Tensor], limit: float = FP16_LARGEST
) -> Iterator[dict[str, float]]:
    """Largest values beyond fp16, or another limit, that come up inside, by the innermost module that makes them.

    Args:
        growth: by layer, how much larger its product is than its output, (out,) or 0-dim.
    """
    found: dict[str, float] = {}
    names = ["the network"]

    def look(x: Tensor) -> None:
        largest = float(x.abs().max()) if x.is_floating_point() and x.numel() else 0.0
        if not largest <= limit:
            found[names[-1]] = max(found.get(names[-1], 0.0), largest)

    def leave(module: nn.Module, _inputs: object, out: Any) -> None:
        if isinstance(module, LAYERS) and names[-1] in growth:
            shape = channel_shape(module)
            watch.aside = True
            product = out if module.bias is None else out - module.bias.view(shape)
            look(product * growth[names[-1]].view(shape))
            watch.aside = False
        names.pop()

    def watched() -> Iterator[RemovableHandle]:
        for name, module in network.named_modules():
            if name:
                yield module.register_forward_pre_hook(lambda _module, _inputs, name=name: names.append(name))
                yield module.register_forward_hook(leave)

    watch = _Watch(look)
    with hooks(watched()), watch:
        yield found
