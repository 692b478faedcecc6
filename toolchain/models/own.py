"""Networks that no config describes: any module of the caller's that denoises.

``forward(sample, timestep, **conditioning)`` gives a tensor, a tuple that begins with it, or an object with ``.sample``. A file
holds names, shapes and numbers of such a network, never its code: whoever builds it again gives the module.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dq_toolchain.toolchain.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

OWN = "torch.nn.Module"
"""``_class_name`` of such a network in a config."""
LIBRARIES = ("torch.", "diffusers.")


def own_config(module: nn.Module, sample_shape: Sequence[int], conditioning: Mapping[str, Tensor]) -> dict[str, Any]:
    """What an artifact says of the module.

    Args:
        sample_shape: (C, H, W), or other axes behind the channels, such as (C, T).
        conditioning: keyword tensors by name, first axis = row.
    Raises:
        ModelError: the shape is not of channels and one axis or more.
    """
    shape = tuple(sample_shape)
    if len(shape) < 2 or not all(type(side) is int and side > 0 for side in shape):
        raise ModelError(
            f"sample_shape: got {shape}, allowed are channels and at least one more axis, such as (3, 32, 32) or (2, 64)"
        )
    return {
        "_class_name": OWN,
        "class": f"{type(module).__module__}.{type(module).__qualname__}",
        "sample_shape": list(shape),
        "in_channels": shape[0],
        "inputs": {
            name: {
                "row": list(rows.shape[1:]),
                "classes": None if rows.is_floating_point() else int(rows.max()) + 1,
            }
            for name, rows in conditioning.items()
        },
        "code_sha256": code_digest(module),
    }


def sample_shape_in(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Shape of one sample. Raises ModelError: the config has none."""
    shape = config.get("sample_shape")
    if not isinstance(shape, list | tuple) or not all(type(side) is int and side > 0 for side in shape):
        raise ModelError(f"sample_shape is {str(shape)[:60]}, allowed are whole numbers; calibrate again")
    return tuple(shape)


def inputs_in(config: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], int | None]]:
    """Keyword tensors by name: shape of a row, and of whole numbers their bound."""
    return {name: (tuple(entry["row"]), entry["classes"]) for name, entry in config["inputs"].items()}


def code_digest(module: nn.Module) -> str:
    """sha256 over the module's structure and, as far as it can be read, the source of its classes: two modules with equal weights
    and another forward differ."""
    found = hashlib.sha256(repr(module).encode())
    kinds = {type(each) for each in module.modules() if not type(each).__module__.startswith(LIBRARIES)}
    for kind in sorted(kinds, key=lambda kind: f"{kind.__module__}.{kind.__qualname__}"):
        with contextlib.suppress(OSError, TypeError):  # typed into a console, or compiled
            found.update(inspect.getsource(kind).encode())
    return found.hexdigest()


def skeleton_of(module: nn.Module) -> nn.Module:
    """A copy in eval mode whose parameters are on torch's meta device: shapes, no memory. Buffers keep their numbers.

    Raises:
        ModelError: the module cannot be copied.
    """
    import torch
    from torch import nn

    memo: dict[int, Any] = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta", dtype=_dtype(p)), requires_grad=False)
        for p in module.parameters()
    }
    return _copied(module, memo | {id(buffer): _plain(buffer) for buffer in module.buffers()})


def in_float32(module: nn.Module) -> nn.Module:
    """A copy in eval mode, on the CPU, gradients off, floats as float32; tensors that are that already are shared.

    Raises:
        ModelError: the module cannot be copied, or two of its names are the same layer.
    """
    from torch import nn

    seen: dict[int, str] = {}
    for name, each in module.named_modules(remove_duplicate=False):
        if any(True for _ in each.parameters(recurse=False)) and seen.setdefault(id(each), name) != name:
            raise ModelError(
                f"{seen[id(each)]} and {name} are one module under two names, which cannot have integers of their own; give each "
                "name its own module (they may share a weight)"
            )
    memo: dict[int, Any] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        plain = _plain(tensor)
        memo[id(tensor)] = nn.Parameter(plain, requires_grad=False) if isinstance(tensor, nn.Parameter) else plain
    return _copied(module, memo)


def _dtype(tensor: Tensor) -> torch.dtype:
    import torch

    return torch.float32 if tensor.is_floating_point() else tensor.dtype


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", _dtype(tensor))


def _copied(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    try:
        return copy.deepcopy(module, memo).eval().requires_grad_(False)
    except Exception as error:  # whatever an attribute of the caller's raises
        raise ModelError(
            f"{type(module).__name__} cannot be copied: {' '.join(str(error).split())[:300]}; remove from it what deepcopy does "
            "not take, such as open files, locks and hooks"
        ) from error
