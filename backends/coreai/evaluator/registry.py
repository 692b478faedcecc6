"""The table of operations that the evaluator knows; each module of operations fills its part of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from dq_toolchain.backends.common.kernels.parts import Parts
from dq_toolchain.backends.coreai.ir import Operation

Implementation = Callable[..., Tensor | Parts | tuple[Tensor, ...]]
"""Called with the operation, whose attributes and declared types it may need, and its operands in order."""
Known = TypeVar("Known", bound=Implementation)

DTYPES = {
    "f32": torch.float32, "f16": torch.float16, "i1": torch.bool, "si64": torch.int64, "si32": torch.int32,
    "ui32": torch.int64, "si16": torch.int16, "ui16": torch.int32, "si8": torch.int8, "ui8": torch.uint8,
    "si4": torch.int8, "ui4": torch.uint8,
}  # fmt: skip
"""What values of a declared type are rounded to."""

OPERATIONS: dict[str, Implementation] = {}
ATTRIBUTES: dict[tuple[str, str], Mapping[str, object]] = {}
"""(operation, attribute) -> what is known of its values; an operation with another is as unknown as one without a name here."""


def operation(*names: str, **attributes: Mapping[str, object]) -> Callable[[Known], Known]:
    """Register an implementation under the names of ``ir.Operation``, with the values that its attributes may have."""

    def register(implementation: Known) -> Known:
        for name in names:
            OPERATIONS[name] = implementation
            ATTRIBUTES.update({(name, attribute): known for attribute, known in attributes.items()})
        return implementation

    return register


def word(op: Operation, attribute: str) -> str:
    """An enumerated attribute: "constant" of ``#coreai.padding_mode<constant>``."""
    return op.attribute(attribute).partition("<")[2].removesuffix(">")


def unknown(op: Operation) -> str | None:
    """What the evaluator does not know of an operation, by name; None if it can be executed."""
    if op.name not in OPERATIONS:
        return op.name
    for (name, attribute), known in ATTRIBUTES.items():
        if name == op.name and word(op, attribute) not in known:
            return f"{op.name} with {attribute} {word(op, attribute)}"
    return None


def integers(value: Tensor) -> list[int]:
    return [int(v) for v in value.flatten().tolist()]


def integer(value: Tensor) -> int:
    return int(value)
