"""A GPU that is none: tensors on it live on the CPU, and an operation that mixes them with tensors elsewhere is refused.

It finds what a first run on a real GPU would trip over: a tensor made on the wrong side, one that was not brought along.
It says nothing about CUDA's kernels, memory or speed, and of ``--offload`` little: recomputed blocks end the process inside
torch's guard of streams for such devices, and weights are not streamed, since torch lets no tensor of the host show memory of
such a device later on. torch lets one process have one such device, and asks it from then on wherever it looks for an
accelerator: use it in a process of its own.

    python -m tests.pretend_gpu calibrate --recipe dq.toml
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
HOST = torch.device("cpu")
aten = torch.ops.aten
MOVES = {aten._to_copy.default, aten.copy_.default}
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
"""Like CUDA, these take integers of the host as an index."""
JOINED = {aten.cat.default, aten.stack.default}
"""Like CUDA's, these take no number of the host, which other operations read as an operand."""


class DeviceTensor(Tensor):
    """Reports the pretended device and holds its numbers in ``host``."""

    host: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, host: Tensor) -> Any:
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, host.shape, strides=host.stride(), storage_offset=host.storage_offset(), dtype=host.dtype,
            device=torch.device(NAME, 0),
        )  # fmt: skip
        made.host = host
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"{NAME}({self.host!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return _execute(func, args, kwargs or {})


def _mapped(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """``tree_map`` over tensors, in a quarter of its time: it is asked twice for every operation."""
    kind = type(value)
    if kind in (tuple, list):
        return kind(_mapped(each, change) for each in value)
    if kind is dict:
        return {key: _mapped(each, change) for key, each in value.items()}
    if isinstance(value, Tensor):
        return change(value)
    return tree_map(lambda x: change(x) if isinstance(x, Tensor) else x, value) if isinstance(value, tuple) else value


def _execute(operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensors: list[Tensor] = []
    _mapped((args, kwargs), tensors.append)
    placed = [isinstance(x, DeviceTensor) for x in tensors]
    may_mix = operation in MOVES or (operation in INDEXED and placed[0])
    left = [x for x, here in zip(tensors, placed, strict=True) if not here]
    if any(placed) and left and not may_mix and not _only_read(operation, args, kwargs, left):
        raise RuntimeError(f"{operation}: some of its tensors are on {NAME}, others on {HOST}")
    wanted = kwargs.get("device")
    if operation is aten.copy_.default:
        result_is_here = placed[0]
    else:
        result_is_here = any(placed) if wanted is None else torch.device(wanted).type == NAME
    host_args, host_kwargs = _mapped((args, kwargs), lambda x: x.host if isinstance(x, DeviceTensor) else x)
    if wanted is not None:
        host_kwargs["device"] = HOST
    result = operation(*host_args, **host_kwargs)
    if not result_is_here:
        return result
    result = _mapped(result, DeviceTensor)
    return return_and_correct_aliasing(operation, args, kwargs, result)


def _only_read(operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any], left: list[Tensor]) -> bool:
    """Whether what the host has of the operands are numbers, () each, that the operation only reads."""
    written: list[Tensor] = []
    for place, argument in enumerate(operation._schema.arguments):
        if argument.is_write:
            _mapped((args[place] if place < len(args) else kwargs.get(argument.name),), written.append)
    targets = {id(x) for x in written}
    return operation not in JOINED and all(x.dim() == 0 and id(x) not in targets for x in left)


class Generator(torch.Generator):
    """The CPU's, whichever device it is asked for: that is where the numbers are drawn."""

    def __new__(cls, device: Any = None) -> Any:
        return super().__new__(cls)


def _copy_from(source: Tensor, target: DeviceTensor, non_blocking: bool = False) -> DeviceTensor:
    """What ``torch.tensor(numbers, device=...)`` calls, past every dispatch to Python."""
    target.host.copy_(source)
    return target


def install() -> torch.device:
    """Register the device with torch, for the rest of the process."""
    _setup_privateuseone_for_python_backend(NAME)
    for library, register in REGISTERED:
        register(library)
    torch.Generator = Generator  # type: ignore[misc]
    return torch.device(NAME, 0)


REGISTERED = (
    (
        torch.library.Library("_", "IMPL"),
        lambda library: library.fallback(
            lambda operation, *args, **kwargs: _execute(operation, args, kwargs), "PrivateUse1"
        ),
    ),
    (torch.library.Library("aten", "IMPL"), lambda library: library.impl("_copy_from", _copy_from, "PrivateUse1")),
)
"""Kept here: what a library registers lives as long as it does."""


def main() -> None:
    """dq-toolchain's command line on a machine whose GPU is the pretended one."""
    from dq_toolchain.toolchain.console.quiet import quiet_imports

    quiet_imports()
    from dq_toolchain.calibrate.compare import plan
    from dq_toolchain.calibrate.prepare import memory, setup
    from dq_toolchain.toolchain.cli.entry import main as command_line

    device = install()
    for module, name, stand_in in (
        (setup, "choose_device", lambda _name: device),
        (plan, "choose_device", lambda _name: device),
        (memory, "free_on", lambda _device: 1 << 40),
    ):
        setattr(module, name, stand_in)
    try:
        command_line()
    except SystemExit as end:
        leave(end.code)


def leave(code: Any) -> None:
    """End the process at once: autograd's thread for a device in Python does not outlive the interpreter."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(code or 0))


if __name__ == "__main__":
    main()
