"""An affine map before and after the network, per step and latent channel: what corrections at run time come down to.

Methods that correct a quantized network while it samples (PTQD, TAC, QNCD, StepbaQ) differ in how they find the
numbers; what runs is this one form, carried by the sampler table to every device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from dq_toolchain.toolchain.errors import SamplerError
from dq_toolchain.toolchain.sampler.transfer import to_device

if TYPE_CHECKING:
    from torch import Tensor

Row = tuple[float, ...]
Rows = tuple[Row, ...]
REMEDY = "run `dq-toolchain calibrate` again"
LARGEST = (2 - 2**-23) * 2.0**127
"""The largest float32."""


@dataclass(frozen=True)
class Correction:
    """f[k] = output_scale[k] * network(input_scale[k] * x[k] + input_shift[k]) + output_shift[k], after guidance.

    Attributes:
        input_shift, output_scale, output_shift: N rows of C numbers, C the latent's channels.
    Raises:
        SamplerError: the rows are not N x C alike, or a number is not finite.
    """

    input_shift: Rows
    output_scale: Rows
    output_shift: Rows

    def __post_init__(self) -> None:
        parts = (self.input_shift, self.output_scale, self.output_shift)
        shapes = {(len(rows), tuple({len(row) for row in rows})) for rows in parts}
        if len(shapes) != 1 or len(next(iter(shapes))[1]) != 1 or not self.channels:
            raise SamplerError(
                "correction: input_shift, output_scale and output_shift must have as many rows, one per call, of as "
                f"many numbers, one per channel, got {sorted(map(str, shapes))}; {REMEDY}"
            )
        if not all(abs(v) <= LARGEST for rows in parts for row in rows for v in row):  # NaN is not
            raise SamplerError(f"correction has a number that is not finite in float32; {REMEDY}")

    @classmethod
    def identity(cls, calls: int, channels: int) -> Correction:
        """The correction that changes nothing."""
        zero, one = ((0.0,) * channels,) * calls, ((1.0,) * channels,) * calls
        return cls(zero, one, zero)

    @property
    def calls(self) -> int:
        return len(self.input_shift)

    @property
    def channels(self) -> int:
        return len(self.input_shift[0]) if self.input_shift else 0

    def before(self, x: Tensor, k: int) -> Tensor:
        """What the network is given: (B, C, H, W), already scaled by the table -> the same shape."""
        return x + _channels(self.input_shift[k], x)

    def after(self, f: Tensor, k: int) -> Tensor:
        """What the sampler is given: (B, C, H, W) network output after guidance -> the same shape."""
        return f * _channels(self.output_scale[k], f) + _channels(self.output_shift[k], f)

    def to_json(self) -> dict[str, Any]:
        return {field.name: [list(row) for row in getattr(self, field.name)] for field in fields(self)}

    @classmethod
    def from_json(cls, data: Any) -> Correction:
        """What ``to_json`` wrote. Raises SamplerError: a key is missing, unknown or of another type."""
        names = {field.name for field in fields(cls)}
        if not isinstance(data, Mapping) or set(data) != names:
            got = sorted(data)[:10] if isinstance(data, Mapping) else type(data).__name__
            raise SamplerError(f"correction must have exactly the keys {sorted(names)}, got {got}; {REMEDY}")
        return cls(**{name: _rows(data[name]) for name in names})


def _channels(row: Row, like: Tensor) -> Tensor:
    import torch  # everything else here is said without it

    values = to_device(torch.tensor(row, dtype=like.dtype), like.device)
    return values.view(-1, *[1] * (like.dim() - 2))


def _rows(data: Any) -> Rows:
    if not isinstance(data, list | tuple) or not all(isinstance(row, list | tuple) for row in data):
        raise SamplerError(f"correction: expected lists of numbers, got {repr(data)[:100]}; {REMEDY}")
    if any(isinstance(v, bool) or not isinstance(v, int | float) for row in data for v in row):
        raise SamplerError(f"correction: every entry must be a number; {REMEDY}")
    return tuple(tuple(float(v) for v in row) for row in data)
