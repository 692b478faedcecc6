"""Correct devices that round elsewhere pass; planted damage fails, with the first step at fault named."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

from dq_toolchain.toolchain.checks import MINIMUM_SEEDS, Check
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.report import first_seeds
from dq_toolchain.toolchain.sampler.conditioning import Conditioning
from dq_toolchain.toolchain.verdict.conformance import TeacherForced, _run, conformance, teacher_forced
from dq_toolchain.toolchain.verdict.limits import limits_for
from tests.toolchain.devices import (
    CORRECT,
    GROUPS,
    STEPS,
    Case,
    Run,
    case,
    half_between_layers,
    run,
    skipping,
    swapped_groups,
    wrong_channel,
    wrong_scale,
)


@pytest.fixture(scope="module")
def made() -> Case:
    return case()


@pytest.fixture(scope="module")
def guided() -> Case:
    return case(guidance=2.0)


def judged(made: Case, device: Run, *, twin: bool = True) -> dict[str, Check]:
    limits = made.limits if twin else made.limits_without_twin
    checks = conformance(*device, made.reference, made.artifact.step_groups, limits["conformance"])
    return {check.name.removeprefix("conformance."): check for check in checks}


def failed(checks: dict[str, Check]) -> dict[str, int | None]:
    return {name: check.step for name, check in checks.items() if not check.passed}  # not decided counts too


@pytest.mark.parametrize("device", CORRECT)
@pytest.mark.parametrize("twin", [True, False])
def test_a_correct_device_passes(made: Case, device: str, twin: bool) -> None:
    assert failed(judged(made, CORRECT[device](made), twin=twin)) == {}


@pytest.mark.parametrize(("seed", "guidance", "weight_bits"), [(1, 1.0, 8), (2, 1.0, 4), (3, 3.0, 8)])
def test_a_correct_device_passes_for_other_networks(seed: int, guidance: float, weight_bits: int) -> None:
    other = case(seed, guidance, weight_bits)
    for device in ("fake-quantized float32", "fake-quantized float64"):
        assert failed(judged(other, CORRECT[device](other))) == {}
    half = run(other.artifact, other.reference, change=half_between_layers)
    assert failed(judged(other, half, twin=False)) == {}


def test_fp16_between_the_layers_passes_without_a_twin(made: Case) -> None:
    device = run(made.artifact, made.reference, change=half_between_layers)
    assert failed(judged(made, device, twin=False)) == {}


@pytest.mark.parametrize("factor", [2.0, 0.5])
@pytest.mark.parametrize("layer", ["conv_in", "mid_block.attentions.0.to_k", "conv_out"])
def test_one_scale_off_by_two_fails_from_the_first_step(made: Case, layer: str, factor: float) -> None:
    damaged = wrong_scale(made.artifact, made.artifact.site_index(layer), factor)
    assert failed(judged(made, run(damaged, made.reference)))["exact"] == 0


@pytest.mark.parametrize("step_group", range(GROUPS))
def test_one_scale_of_one_step_group_fails_at_the_first_step_of_that_group(made: Case, step_group: int) -> None:
    damaged = wrong_scale(made.artifact, made.artifact.site_index("mid_block.resnets.0.conv1"), 2.0, step_group)
    steps = failed(judged(made, run(damaged, made.reference)))
    assert min(step for step in steps.values() if step is not None) == made.artifact.step_groups[step_group][0]


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 3), (2, 3)])
def test_swapped_step_groups_fail_at_the_first_of_them(made: Case, first: int, second: int) -> None:
    damaged = swapped_groups(made.artifact, first, second)
    steps = failed(judged(made, run(damaged, made.reference)))
    assert min(step for step in steps.values() if step is not None) == made.artifact.step_groups[first][0]


DAMAGE_WITHOUT_TWIN: dict[str, Callable[[Artifact], Artifact]] = {
    "output convolution's scale doubled": lambda a: wrong_scale(a, a.site_index("conv_out"), 2.0),
    "output convolution's scale halved": lambda a: wrong_scale(a, a.site_index("conv_out"), 0.5),
    "a channel of a residual convolution doubled": lambda a: wrong_channel(a, "mid_block.resnets.0.conv2"),
    "a channel of the input convolution doubled": lambda a: wrong_channel(a, "conv_in"),
}


@pytest.mark.parametrize("damage", DAMAGE_WITHOUT_TWIN)
def test_visible_damage_fails_even_without_a_twin(made: Case, damage: str) -> None:
    device = run(DAMAGE_WITHOUT_TWIN[damage](made.artifact), made.reference, change=half_between_layers)
    assert 0 in failed(judged(made, device, twin=False)).values()


def test_a_wrong_channel_fails(made: Case) -> None:
    damaged = wrong_channel(made.artifact, "down_blocks.0.resnets.0.conv1")
    assert failed(judged(made, run(damaged, made.reference)))["exact"] == 0


def test_ignoring_guidance_fails_at_the_first_step(guided: Case) -> None:
    checks = failed(judged(guided, run(guided.artifact, guided.reference, guidance=1.0), twin=False))
    assert checks["ratio"] == 0
    assert checks["difference"] == 0


def test_wrong_labels_fail_at_the_first_step(made: Case) -> None:
    labels = made.reference.conditioning.cond["class_labels"]
    device = run(made.artifact, made.reference, conditioning=Conditioning({"class_labels": (labels + 1) % 10}))
    checks = failed(judged(made, device, twin=False))
    assert checks["ratio"] == 0
    assert checks["difference"] == 0


@pytest.mark.parametrize("step", [1, 4])
def test_a_skipped_sampler_step_is_named_by_the_rollout_alone(made: Case, step: int) -> None:
    device = run(made.artifact, made.reference, table=skipping(made.artifact.table, step))
    assert failed(judged(made, device)) == {"rollout": step}


def test_other_start_noise_fails(made: Case) -> None:
    latents, outputs = run(made.artifact, made.reference)
    latents = latents.clone()
    latents[0] *= 1.01
    assert failed(judged(made, (latents, outputs))) == {"start": 0}


def test_a_constant_offset_is_a_bias(made: Case) -> None:
    latents, outputs = run(made.artifact, made.reference)
    error = made.reference.simulation_outputs - made.reference.fp32_outputs_at_simulation
    error = error.square().mean((2, 3, 4)).sqrt()
    outputs = outputs.clone()
    outputs[3:] += 0.2 * error[3:, :, None, None, None]
    checks = failed(judged(made, (latents, outputs), twin=False))
    assert checks["bias"] == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["latents", "outputs"])
def test_what_is_not_finite_fails_with_its_step(made: Case, value: float, where: str) -> None:
    latents, outputs = (t.clone() for t in run(made.artifact, made.reference))
    if where == "latents":
        latents[6:, 2] = value
    else:
        outputs[5:, 2] = value
    assert failed(judged(made, (latents, outputs))) == {"finite": 5}


def test_a_program_of_another_calibration_fails_though_its_errors_are_as_large(made: Case) -> None:
    """Errors of the simulation's size that have hardly anything in common with them: 1.35 apart, where 1.41 is nothing."""
    error = made.reference.simulation_outputs - made.reference.fp32_outputs_at_simulation
    flat = error.flatten(2)
    noise = torch.randn(flat.shape, generator=torch.Generator().manual_seed(0))
    noise -= flat * (noise * flat).sum(2, keepdim=True) / flat.square().sum(2, keepdim=True)
    noise *= flat.norm(dim=2, keepdim=True) / noise.norm(dim=2, keepdim=True)
    shared = 1 - 1.35**2 / 2
    other = (shared * flat + (1 - shared**2) ** 0.5 * noise).reshape(error.shape)
    outputs = made.reference.fp32_outputs_at_simulation + other
    checks = failed(judged(made, (made.reference.simulation_latents, outputs), twin=False))
    assert checks["agreement"] == 0
    assert not {"ratio", "step_groups", "run", "difference", "rollout"} & set(checks)


def test_few_seeds_do_not_fail_by_a_median(made: Case) -> None:
    few = first_seeds(made.reference, 4)
    error = few.simulation_outputs - few.fp32_outputs_at_simulation
    outputs = few.fp32_outputs_at_simulation - error
    checks = conformance(
        few.simulation_latents, outputs, few, made.artifact.step_groups, limits_for(few)["conformance"]
    )
    found = {check.name.removeprefix("conformance."): (check.outcome, check.more_seeds) for check in checks}
    assert found["difference"] == found["agreement"] == ("not decided", MINIMUM_SEEDS - 4)


def test_one_step_is_judged_as_a_step() -> None:
    """A turbo model's only call: nothing to average over, and no interval that is infinite for ever."""
    made = case(seeds=12)
    figures = TeacherForced(*(torch.zeros(1, 12, dtype=torch.float64) for _ in range(3)))
    assert _run(figures, made.limits["conformance"]).passed
    figures = dataclasses.replace(figures, log_ratio=torch.full((1, 12), 0.3, dtype=torch.float64))
    assert _run(figures, made.limits["conformance"]).outcome == "fail"


def test_two_seeds_still_catch_gross_damage() -> None:
    few = case(seeds=2)
    damaged = wrong_scale(few.artifact, few.artifact.site_index("conv_out"), 4.0)
    assert failed(judged(few, run(damaged, few.reference), twin=False))["ratio"] == 0
    assert failed(judged(few, run(few.artifact, few.reference, mode="fake_quantize"))) == {}


def test_the_figures_are_what_they_say(made: Case) -> None:
    reference = made.reference
    error = reference.simulation_outputs - reference.fp32_outputs_at_simulation
    figures = teacher_forced(reference.fp32_outputs_at_simulation + 3 * error, reference)
    torch.testing.assert_close(
        figures.log_ratio.exp(), torch.full((STEPS, len(error[0])), 3.0, dtype=torch.float64), rtol=1e-3, atol=0
    )
    torch.testing.assert_close(figures.difference, torch.full_like(figures.difference, 2.0), rtol=1e-3, atol=0)


@pytest.mark.parametrize(("damaged", "first"), [({2}, 4), ({0, 1, 2, 3}, 0), ({1, 2}, 2), (set(), None)])
def test_the_scan_names_the_first_group_without_agreement(made: Case, damaged: set[int], first: int | None) -> None:
    share = torch.tensor([0.25, 0.3, 0.25, 0.3, 0.5, 0.6, 0.6, 0.6])  # early groups alone prove nothing
    error = made.reference.simulation_outputs - made.reference.fp32_outputs_at_simulation
    outputs = made.reference.simulation_outputs.clone()
    for group, steps in enumerate(made.artifact.step_groups):
        for step in steps:
            agreeing = 0 if group in damaged else round(float(share[step]) * len(outputs[step]))
            outputs[step, agreeing:] += 0.5 * error[step, agreeing:].roll(1, dims=-1)
    limits = made.limits["conformance"] | {"exact": {"difference": 0.02, "share": share.tolist()}}
    checks = conformance(made.reference.simulation_latents, outputs, made.reference, made.artifact.step_groups, limits)
    assert {check.name: check.step for check in checks}["conformance.exact"] == first


def test_an_exact_simulation_has_ratio_one() -> None:
    made = case(seeds=2)
    equal = dataclasses.replace(made.reference, simulation_outputs=made.reference.fp32_outputs_at_simulation)
    figures = teacher_forced(equal.simulation_outputs, equal)
    assert figures.log_ratio.abs().max() == 0
    assert figures.difference.max() == 0


def noisy(made: Case, share: float) -> Run:
    """Outputs that differ from the simulation's by noise, of this share of their own size; the rollout is the simulation's."""
    reference = made.reference
    noise = torch.randn(reference.simulation_outputs.shape, generator=torch.Generator().manual_seed(0))
    size = reference.fp32_outputs_at_simulation.flatten(2).norm(dim=2) / noise.flatten(2).norm(dim=2)
    return reference.simulation_latents, reference.simulation_outputs + share * size[:, :, None, None, None] * noise


@pytest.mark.parametrize("over", [1.0, 2.0])
def test_limits_with_room_for_float_arithmetic_take_so_much_noise_and_no_more(made: Case, over: float) -> None:
    errors = made.reference.simulation_outputs - made.reference.fp32_outputs_at_simulation
    arithmetic = 1.5 * float(errors.norm() / made.reference.fp32_outputs_at_simulation.norm())
    limits = limits_for(made.reference, arithmetic=arithmetic)["conformance"]
    checks = conformance(*noisy(made, over * arithmetic), made.reference, made.artifact.step_groups, limits)
    names = {check.name.removeprefix("conformance.") for check in checks if not check.passed}
    assert ("run" in names) == (over > 1)
    assert "run" in failed(judged(made, noisy(made, over * arithmetic), twin=False))


def test_room_for_float_arithmetic_does_not_hide_a_wrong_channel(made: Case) -> None:
    limits = limits_for(made.reference, arithmetic=1e-3)["conformance"]
    device = run(wrong_channel(made.artifact, "down_blocks.0.resnets.0.conv1"), made.reference)
    checks = conformance(*device, made.reference, made.artifact.step_groups, limits)
    assert not all(check.passed for check in checks)
