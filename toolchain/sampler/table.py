"""The sampler as a table of numbers: one linear recurrence that every rollout, on host or device, runs from.

``probe`` fills it from a diffusers scheduler, ``rollout`` runs it, the artifact and the bundle carry its JSON form.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from dq_toolchain.toolchain.errors import SamplerError
from dq_toolchain.toolchain.sampler.correction import Correction

if TYPE_CHECKING:
    from torch import Tensor

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction", "flow_prediction", "consistency")
REMEDY = "build the table with probe()"

Row = tuple[float, ...]


@dataclass(frozen=True)
class SamplerTable:
    """``x[k+1] = sum_i a[k][i]*x[k-i] + sum_j b[k][j]*f[k-j] + c[k]*noise[k]``; the network is given ``input_scale[k]*x[k]``.

    k counts network calls, 0..N-1; x[0] is noise times ``init_noise_sigma``. Entries that would reach before x[0] or
    f[0] are zero. Two tables of one sampler can differ, since x[k] is itself a sum of earlier terms.

    Attributes:
        scheduler: diffusers class name.
        prediction_type: one of PREDICTION_TYPES.
        timesteps: N, what the network is given at call k.
        a: N rows of 1 + latent history. b: N rows of 1 + output history. c: N.
        input_scale: N, scheduler.scale_model_input as a factor.
        correction: what stands around the network at every call, None for nothing.
    Raises:
        SamplerError: shapes do not agree, a number is not finite, or a row reaches before the start.
    """

    scheduler: str
    prediction_type: str
    timesteps: Row
    a: tuple[Row, ...]
    b: tuple[Row, ...]
    c: Row
    input_scale: Row
    init_noise_sigma: float
    correction: Correction | None = None

    def __post_init__(self) -> None:
        if self.prediction_type not in PREDICTION_TYPES:
            raise SamplerError(
                f"prediction_type of {self.scheduler} must be one of {', '.join(PREDICTION_TYPES)}, got "
                f"{self.prediction_type!r}; {self._how_to_correct()}"
            )
        if not self.calls:
            raise SamplerError(f"sampler table has no timesteps, at least 1 is needed; {REMEDY}")
        for name in ("a", "b", "c", "input_scale"):
            if len(getattr(self, name)) != self.calls:
                raise SamplerError(
                    f"sampler table: {name} has {len(getattr(self, name))} rows for {self.calls} "
                    f"timesteps, they must agree; {REMEDY}"
                )
        for name, rows in (("a", self.a), ("b", self.b)):
            if len({len(row) for row in rows}) != 1 or not rows[0]:
                raise SamplerError(
                    f"sampler table: rows of {name} must be of one length, 1 or more, got "
                    f"{sorted({len(row) for row in rows})}; {REMEDY}"
                )
            if any(any(row[k + 1 :]) for k, row in enumerate(rows)):
                raise SamplerError(f"sampler table: {name} looks back before call 0, those entries must be 0; {REMEDY}")
        numbers = [self.init_noise_sigma, *self.timesteps, *self.c, *self.input_scale]
        if not all(map(math.isfinite, [*numbers, *(value for row in (*self.a, *self.b) for value in row)])):
            raise SamplerError(f"sampler table has a number that is not finite; {REMEDY}")
        if self.correction is not None and self.correction.calls != self.calls:
            raise SamplerError(
                f"sampler table: the correction has {self.correction.calls} rows for {self.calls} timesteps, they "
                f"must agree; {REMEDY}"
            )
        if self.init_noise_sigma <= 0:
            raise SamplerError(f"init_noise_sigma must be above 0, got {self.init_noise_sigma}; {REMEDY}")

    def _how_to_correct(self) -> str:
        where = "scheduler/scheduler_config.json, or in a copy whose folder --scheduler names"
        if self.prediction_type is None:
            return f"add what its network predicts to {where}"
        return "networks that predict something else are not supported"

    @property
    def calls(self) -> int:
        """N, the number of network calls."""
        return len(self.timesteps)

    @property
    def uncorrected(self) -> SamplerTable:
        """The same table for a network that needs no correction, such as FP32."""
        return replace(self, correction=None)

    @property
    def stochastic(self) -> bool:
        """Whether any call adds noise, which then has to be given to ``advance``."""
        return any(self.c)

    def advance(
        self,
        k: int,
        latents: Sequence[Tensor],
        outputs: Sequence[Tensor],
        noise: Tensor | None = None,
    ) -> Tensor:
        """x[k+1], in the dtype of the latents.

        Args:
            latents: x[k], x[k-1], ..., newest first; longer or shorter than the table's history as long as nothing
                that has a coefficient is missing. Each (B, C, H, W).
            outputs: f[k], f[k-1], ..., the network outputs after guidance, likewise.
            noise: standard normal, shape of x[k]; may be None where c[k] is 0.
        Raises:
            SamplerError: a latent, an output or the noise that call k needs is missing.
        """
        import torch

        for what, row, history in (("latents", self.a[k], latents), ("outputs", self.b[k], outputs)):
            if any(row[len(history) :]) or not history:
                raise SamplerError(
                    f"call {k} of {self.scheduler} needs up to {len(row)} {what}, got {len(history)}; "
                    "pass the earlier ones too, newest first"
                )
        if self.c[k] and noise is None:
            raise SamplerError(f"call {k} of {self.scheduler} adds noise and got none; pass the stored step noise")
        total = torch.zeros_like(latents[0])
        for coefficient, tensor in (
            *zip(self.a[k], latents, strict=False),
            *zip(self.b[k], outputs, strict=False),
            (self.c[k], noise),
        ):
            if coefficient and tensor is not None:
                total = total + coefficient * tensor
        return total

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; floats survive the round trip bit for bit. ``correction`` is there only if there is one."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        if self.correction is None:
            del plain["correction"]
        return plain

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SamplerTable:
        """The table that ``to_json`` wrote. Raises SamplerError: a key is missing, unknown or of another type."""
        names = {field.name for field in fields(cls)} - {"correction"}
        if not isinstance(data, Mapping) or set(data) - {"correction"} != names:
            got = sorted(data)[:20] if isinstance(data, Mapping) else type(data).__name__
            raise SamplerError(f"sampler table must have exactly the keys {sorted(names)}, got {got}; {REMEDY}")
        try:
            return cls(
                scheduler=_text(data["scheduler"]),
                prediction_type=_text(data["prediction_type"]),
                timesteps=_row(data["timesteps"]),
                a=tuple(map(_row, data["a"])),
                b=tuple(map(_row, data["b"])),
                c=_row(data["c"]),
                input_scale=_row(data["input_scale"]),
                init_noise_sigma=_number(data["init_noise_sigma"]),
                correction=Correction.from_json(data["correction"]) if "correction" in data else None,
            )
        except (TypeError, OverflowError) as error:
            raise SamplerError(f"sampler table: {error}; {REMEDY}") from error


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"expected a number, got {repr(value)[:60]}")
    return float(value)


def _row(values: object) -> Row:
    if not isinstance(values, list | tuple):
        raise TypeError(f"expected a list of numbers, got {values!r}")
    return tuple(map(_number, values))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {repr(value)[:60]}")
    return value
