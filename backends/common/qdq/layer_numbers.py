"""Whether a layer of a written program has the weight scales and the bias that it must have; what an audit raises."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from dq_toolchain.backends.common.qdq.reading import Tail, Unreadable
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import LayerWeights

REMEDY = "nothing was exported; report it with calibration.json"


def fail(text: str) -> BackendError:
    """What an audit raises."""
    return BackendError(f"audit of the saved program failed: {text}; {REMEDY}")


class Different(Unreadable):
    """A form that is right with numbers that are not: another layer or pair may fit."""


class Numbers(Protocol):
    """What has integer layers: an artifact, or a part of a pipeline."""

    @property
    def layers(self) -> Mapping[str, LayerWeights]: ...

    @property
    def float_parameters(self) -> Mapping[str, Tensor]: ...


def check_tail(tail: Tail, ratio: int | None, numbers: Numbers, layer: str, scale: Tensor) -> None:
    """Scales of channels and the bias, in the type of the program's arithmetic; a converter may fill in zeros for a bias.

    Args:
        scale: of the weight, as unpacked.
    Raises:
        Different: one of them is not the layer's.
    """
    wanted = numbers.layers[layer].weight_scale
    got = scale * tail.rest  # one number if the program has one for the whole tensor
    if got.numel() not in (1, wanted.numel()) or not torch.equal(got.expand_as(wanted), wanted):
        raise Different(f"the weight scales of {layer} differ")
    if tail.ratio != ratio:
        raise Different(f"{layer} is divided by ratio {ratio} and multiplied by ratio {tail.ratio}")
    bias = numbers.float_parameters.get(f"{layer}.bias")
    if tail.sums and bias is not None:
        right = all(_holds(numbers, one, rounded(bias, tail.half), tail.half) for one in tail.sums)
    else:
        added = torch.zeros(()) if tail.bias is None else tail.bias
        summand = torch.zeros(()) if bias is None else rounded(bias, tail.half)
        right = torch.equal(*torch.broadcast_tensors(added, summand))
    if not right:
        raise Different(f"the bias of {layer} differs")


def _holds(numbers: Numbers, total: Tensor, bias: Tensor, half: bool) -> bool:
    """Whether a constant is the bias, or its sum with a float parameter that ends with features."""
    parameters = (one for one in numbers.float_parameters.values() if one.numel() == total.numel())
    rows = (rounded(one.reshape(-1, len(bias)), half) for one in parameters if one.numel() % len(bias) == 0)
    sums = (rounded(bias + one, half).flatten() for one in rows)
    return torch.equal(total, bias) or any(torch.equal(total, one) for one in sums)


def nearest(values: Tensor, numbers: Numbers, left: Iterable[str], in_float: bool = False) -> str:
    """For the text of an error, whose weight it may have been: of the layers left the one that differs least.

    Args:
        in_float: the values are floats, in whatever order a converter gave their axes.
    """
    distances = {}
    values = values.flatten().to(torch.float32)
    values = values.sort().values if in_float else values
    for name in left:
        weights = numbers.layers[name]
        if weights.weight_q.numel() == values.numel():
            wanted = weights.weight_q.flatten(1) * (weights.weight_scale.view(-1, 1) if in_float else 1)
            wanted = wanted.flatten().sort().values if in_float else wanted.flatten()
            distances[name] = float((values - wanted).abs().sum())
    return f"; nearest is {min(distances, key=distances.__getitem__)}" if distances else ""


def rounded(values: Tensor, half: bool) -> Tensor:
    """In the type of the program's arithmetic, held as float32."""
    return values.to(torch.float16).to(torch.float32) if half else values
