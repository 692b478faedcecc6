"""What the form of a program decides: expected numbers, what the input ``ranges`` brings, and the reference to be judged by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from dq_toolchain.backends.base import Say
from dq_toolchain.backends.common.outputs import output_qparams, output_reference
from dq_toolchain.backends.common.qdq.audit import Expected
from dq_toolchain.backends.common.qdq.qparams import QParams
from dq_toolchain.backends.common.qdq.settings import QDQSettings
from dq_toolchain.backends.common.samplings import Judged
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.verdict.limits import limits_for

AsInput = Callable[[Artifact, bool], tuple[Expected, Tensor]]
"""(artifact, fp16 or not) -> the numbers of a program whose step groups are an input, and that input: (G, L) float32."""


@dataclass(frozen=True)
class Plan:
    """See the module. ``ranges``: (G, L) float32, None where step groups are functions. ``judged``: what gave the reference and
    limits, for those of other samplers."""

    form: str
    expected: Expected
    ranges: Tensor | None
    reference: Reference
    limits: Mapping[str, Any]
    judged: Callable[[Artifact, Reference], Judged]


def plan_of(artifact: Artifact, reference: Reference, settings: QDQSettings, say: Say, as_input: AsInput) -> Plan:
    """Raises BackendError: run-time scales, or ranges of outputs, cannot be had for this artifact."""
    half = settings.precision == "fp16"
    if settings.step_groups_as == "input":
        expected, ranges = as_input(artifact, half)
        return Plan("runtime-scales", expected, ranges, *_as_it_is(artifact, reference), _as_it_is)
    if not settings.quantize_outputs:
        expected = Expected(QParams.of(artifact), half=half)
        return Plan("functions", expected, None, *_as_it_is(artifact, reference), _as_it_is)
    say("measuring the ranges of outputs")
    outputs = output_qparams(artifact, reference)
    expected = Expected(QParams.of(artifact, outputs), outputs=True, half=half)
    judged = partial(output_reference, outputs=outputs)
    return Plan("functions", expected, None, *judged(artifact, reference), judged)


def _as_it_is(_artifact: Artifact, reference: Reference) -> Judged:
    return reference, limits_for(reference)
