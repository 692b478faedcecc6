"""The limits of a bundle: how far a correct device may be from the FP32 model and from the simulation.

Export stores them in bundle.json, from the simulation's held-out figures; whoever judges derives them anew from the
reference (``limits_of_judge``) and applies them in ``fidelity`` and ``conformance``.

Why they are statistical: a difference in the last bit of a float sum moves one activation across a rounding edge, and
that flip cascades. Two correct executions of the same integers then differ at the end of a deep UNet by about the
quantization noise itself, while the *size* of their errors is the same. Measured on correct other devices (the
simulation read as fake-quantized float32, in float64, with its input changed by 1e-6, and with fp16 between the
layers; 3 networks of 55-102 sites, 8 and 4 weight bits, 6-20 steps, 16 seeds):

    size of the error, device / simulation    per step 0.91-1.05, step group 0.94-1.03, all steps 0.986-1.002
    the same, latents of the own rollout      per step 0.91-1.08 (geometric mean over the seeds)
    bias / size of the error                  at most 0.066
    size of the difference / of the error     at most 1.10 (medians), over all steps 0.0-0.8; sqrt(2) for independent errors
                                              of equal size, 1.35 for a program of another calibration of the same network
    seeds and steps without any flip          0.04-0.95 in float32 and float64, 0 with fp16 between the layers

XNNPACK on x86 (8 and 20 steps, 20 with guidance) lies within the same figures: all steps 1.000 and 1.001, seeds and
steps without any flip 0.94, 0.47 and 0.29, where fake-quantized float32 has 0.91, 0.33 and 0.09. One scale off by 2 in
one of 55 or 70 sites changes the size of the error by less than 2 %, but leaves no seed at any step without a flip.

The departure that the seeds have in common at one step (all share the timestep embedding and its flips) shrinks with
more steps, not with more seeds; hence a tolerance that narrows from step to step group to run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.metrics import median, psnr, rollout_error

if TYPE_CHECKING:
    from torch import Tensor

    from dq_toolchain.toolchain.formats.artifact import Artifact

PSNR_FLOOR = 20.0
"""dB; below it a picture is visibly another one, whatever the simulation says."""

CONFORMANCE: dict[str, float] = {
    "ratio_step": 1.10,
    "ratio_step_group": 1.05,
    "ratio_run": 1.02,
    "ratio_gross": 1.5,
    "rollout_ratio": 1.25,
    "rollout_gross": 2.0,
    "bias": 0.05,
    "bias_gross": 0.5,
    "difference": 1.5,
    "difference_run": 1.2,
}
TINY = 1e-30
EXACT = 0.02
"""A step of a seed counts as free of flips when ||device - simulation|| is below this share of the error: flips start
near 0.1, float32 summation alone stays near 1e-4."""


ARITHMETIC_MOST = 0.03
"""Largest share of an output that limits may leave to a target's float arithmetic; more would hide a wrong program."""


def limits_for(reference: Reference, twin: Tensor | None = None, arithmetic: float = 0.0) -> dict[str, Any]:
    """Limits as plain JSON values, for bundle.json.

    Fidelity: the median error after every step may be 1 + 2/sqrt(S) times the simulation's (1.5 at 16 seeds: the
    logarithm of the error has a spread near 0.5 over the seeds, its paired difference between correct runs 0.1-0.4);
    the final PSNR may be 1 dB below the simulation's, seed by seed, and its median not below PSNR_FLOOR.

    Args:
        twin: (N, S, C, H, W) network outputs of another correct execution at the simulation's latents
            (``twin_outputs``). Only for a target that keeps float32 between its integer operations: there a correct
            device agrees with the simulation exactly wherever nothing flips, which a damaged one never does.
        arithmetic: share of the size of an output, after guidance, by which the target's float arithmetic may change it. For a
            target whose float operations are coarser than the quantization is; every limit then leaves room for both.
    """
    room = arithmetic_room(reference, arithmetic)
    errors = rollout_error(reference.expected_latents, reference.fp32_latents)
    final = psnr(reference.expected_latents[-1], reference.fp32_latents[-1])
    margin = 1 + 2 / math.sqrt(reference.seeds)
    return {
        "fidelity": {
            "error": [margin * float(v * room_k) for v, room_k in zip(median(errors), room, strict=True)],
            "simulation_psnr": [float(v) for v in final],
            "psnr_loss": 1.0 + 20 * math.log10(float(room[-1])),
            "psnr_loss_gross": 6.0 + 20 * math.log10(float(room[-1])),
            "psnr_floor": PSNR_FLOOR,
        },
        "conformance": {
            **CONFORMANCE,
            **({"arithmetic": arithmetic} if arithmetic else {}),
            "exact": None
            if twin is None
            else {"difference": EXACT, "share": [float(v) for v in exact_share(twin, reference, EXACT)]},
        },
    }


def arithmetic_room(reference: Reference, arithmetic: float) -> Tensor:
    """How much larger than the simulation's the error of a rollout may be by float arithmetic, after every step: (N,) float64.

    Errors of quantization and of float arithmetic are independent, so at one step their sizes add up as sqrt(a^2 + b^2); a
    rollout has the mean of the steps so far.
    """
    fp32 = reference.fp32_outputs_at_simulation.double().flatten(2)
    if not arithmetic:
        return fp32.new_ones(len(fp32))
    error = (reference.simulation_outputs.double().flatten(2) - fp32).norm(dim=2)
    share = (arithmetic * fp32.norm(dim=2)).square() / error.square().clamp_min(TINY)
    steps = median(share)
    so_far = steps.cumsum(0) / steps.new_tensor(range(1, len(steps) + 1))
    return (1 + so_far).sqrt()


def limits_of_judge(
    stored: Mapping[str, Any], reference: Reference, whole: Reference
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The limits to judge by, all but one figure derived from the reference, and what in ``stored`` differs from them.

    The share of seeds free of flips is the one that needs the artifact; it is taken from ``stored``, within [0, 1].

    Args:
        stored: what bundle.json holds. reference: of the seeds that the device ran. whole: of all.
    Raises:
        ValueError: ``stored`` lacks a limit, or the share is no list of one number in [0, 1] per step.
    """
    arithmetic = stored["conformance"].get("arithmetic", 0.0)
    if not 0 <= arithmetic <= ARITHMETIC_MOST:
        raise ValueError(f"conformance.arithmetic must be from 0 to {ARITHMETIC_MOST}, got {arithmetic}")
    limits, expected = (limits_for(each, arithmetic=arithmetic) for each in (reference, whole))
    given = {part: dict(stored[part]) for part in ("fidelity", "conformance")}
    exact = given["conformance"].pop("exact")
    del expected["conformance"]["exact"]
    if exact is not None:
        share = list(exact["share"])
        if len(share) != whole.calls or not all(_is_share(value) for value in share):
            raise ValueError(f"conformance.exact.share must be {whole.calls} numbers from 0 to 1")
        limits["conformance"]["exact"] = {"difference": EXACT, "share": [float(value) for value in share]}
    found = dict(_leaves(given))
    differing = [name for name, value in _leaves(expected) if name in found and not _alike(found[name], value)]
    return limits, tuple(differing)


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _alike(given: Any, derived: float) -> bool:
    """As far as another machine's sums in float32 may differ (relative, or hundredths of a dB)."""
    return isinstance(given, int | float) and abs(given - derived) <= 2e-2 + 1e-2 * abs(derived)


def _leaves(part: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(part, Mapping):
        for key, value in part.items():
            yield from _leaves(value, f"{name}.{key}" if name else str(key))
    elif isinstance(part, list):
        for index, value in enumerate(part):
            yield from _leaves(value, f"{name}[{index}]")
    else:
        yield name, part


def exact_share(outputs: Tensor, reference: Reference, threshold: float) -> Tensor:
    """Share of the seeds without any flip, per step: (N, S, C, H, W) -> (N,) float64."""
    difference = (outputs.double() - reference.simulation_outputs.double()).flatten(2).norm(dim=2)
    error = reference.simulation_outputs.double() - reference.fp32_outputs_at_simulation.double()
    share: Tensor = (difference < threshold * error.flatten(2).norm(dim=2)).double().mean(1)
    return share


def twin_outputs(artifact: Artifact, reference: Reference) -> Tensor:
    """The artifact executed in fake-quantized float32 at the simulation's latents: (N, S, C, H, W) float32.

    As far from the integer simulation as a correct float32 device is: other summation order, other rounding of sums.
    """
    import torch

    from dq_toolchain.toolchain.sampler.denoiser import Denoiser, outputs_at
    from dq_toolchain.toolchain.simulation.network import SimulatedNetwork

    network = SimulatedNetwork(artifact, "fake_quantize")
    denoiser = Denoiser(network, artifact.table, reference.conditioning, artifact.guidance, network.set_step)
    with torch.no_grad():
        return outputs_at(denoiser, reference.simulation_latents)
