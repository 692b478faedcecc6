"""What a program is judged by that quantizes results too: a simulation that does so, in its limits, rollout and reference."""

from __future__ import annotations

import torch

from dq_toolchain.backends.common.outputs import output_qparams, output_reference
from dq_toolchain.toolchain.formats.report import first_seeds
from dq_toolchain.toolchain.metrics import rollout_error
from dq_toolchain.toolchain.verdict.fidelity import fidelity
from dq_toolchain.toolchain.verdict.limits import limits_for, limits_of_judge
from tests.backends.executorch.conftest import small_artifact


def test_a_judge_derives_the_limits_that_the_bundle_has() -> None:
    artifact, _, reference = small_artifact()
    outputs = output_qparams(artifact, reference)
    made, limits = output_reference(artifact, reference, outputs)
    again, differing = limits_of_judge(limits, made, made)
    assert (again, differing) == (limits, ())
    assert limits_of_judge(limits, reference, reference)[1] != ()


def test_its_own_rollout_is_the_one_that_is_expected() -> None:
    artifact, _, reference = small_artifact()
    outputs = output_qparams(artifact, reference)
    coarse = type(outputs)(outputs.scale * 8, outputs.zero_point)
    made, limits = output_reference(artifact, reference, coarse)
    assert made.program_latents is not None
    assert torch.equal(made.simulation_latents, reference.simulation_latents)
    own, plain = (
        rollout_error(each, reference.fp32_latents)[-1].mean()
        for each in (made.expected_latents, reference.simulation_latents)
    )
    assert own > 1.5 * plain
    judged = {check.name: check.outcome for check in fidelity(made.program_latents, made, limits["fidelity"])}
    assert judged["fidelity.error"] == judged["fidelity.psnr"] == "pass"
    strict = {
        check.name: check.outcome
        for check in fidelity(made.program_latents, reference, limits_for(reference)["fidelity"])
    }
    assert "fail" in strict.values()


def test_a_device_that_ran_fewer_seeds_is_judged_by_theirs() -> None:
    artifact, _, reference = small_artifact()
    made, _ = output_reference(artifact, reference, output_qparams(artifact, reference))
    few = first_seeds(made, 2)
    assert made.program_latents is not None
    assert torch.equal(few.expected_latents, made.program_latents[:, :2])
