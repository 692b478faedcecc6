"""How many bytes one call of a network makes beside its weights where a program is executed on the host, found on shapes alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from dq_toolchain.backends.common.call import Call, PositionalNetwork
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.models.activations import activations_of

FLOAT = 4


@dataclass(frozen=True)
class CallMemory:
    """Bytes in float32. ``activations``: the most at one time. ``scores``: of the largest attention, q @ k^T of all heads, which
    torch never has as a whole and interpreters of programs do."""

    activations: int
    scores: int


class _Scores(TorchFunctionMode):
    largest = 0

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") == "scaled_dot_product_attention":
            named = dict(zip(("query", "key"), args, strict=False)) | (kwargs or {})
            size = FLOAT * math.prod(named["query"].shape[:-1]) * int(named["key"].shape[-2])
            self.largest = max(self.largest, size)
        return func(*args, **(kwargs or {}))


def call_memory(artifact: Artifact, call: Call) -> CallMemory:
    """Of one call of the artifact's network in float."""
    network = PositionalNetwork(artifact.build_skeleton(), tuple(call.conditioning))
    arguments: tuple[Tensor, ...] = call.with_ranges(None).arguments
    with _Scores() as scores:
        made = activations_of(network, arguments)
    return CallMemory(made.on_cpu, scores.largest)
