"""The other step counts and guidance scales that a recipe asks held-out rollouts for: probed before any long work."""

from __future__ import annotations

import math

from dq_toolchain.toolchain.errors import RecipeError, SamplerError
from dq_toolchain.toolchain.models.source import Source
from dq_toolchain.toolchain.recipe.sections import Recipe
from dq_toolchain.toolchain.sampler.samplings import ALIKE, Sampling, check_wanted, step_groups_at
from dq_toolchain.toolchain.sampler.scheduler import sampler_table
from dq_toolchain.toolchain.sampler.step_groups import StepGroups
from dq_toolchain.toolchain.sampler.table import SamplerTable

FLAGS = ("--more-steps", "--more-guidance")


def samplings_of(
    recipe: Recipe, source: Source, table: SamplerTable, step_groups: StepGroups, guidance: float
) -> tuple[Sampling, ...]:
    """Every count with every scale but the calibrated pair, in rising order.

    Args:
        table, step_groups, guidance: of the calibration.
    Raises:
        RecipeError: a count or scale comes twice, is the calibrated one, or there are too many; guidance where there is none.
        SamplerError: the scheduler refuses a count.
    """
    own, wanted = recipe.sampler, recipe.reference
    counts, scales = wanted.more_steps, tuple(max(1.0, scale) for scale in wanted.more_guidance)
    check_wanted(counts, scales, FLAGS)
    if own.steps in counts:
        raise RecipeError(f"--more-steps: got {own.steps}, at which it is calibrated anyway; leave it out")
    if scales and guidance == 1:
        raise RecipeError(
            f"--more-guidance: got {scales[0]:g}, and this calibration makes no unconditional calls (guidance 1); set --guidance "
            "above 1, or leave it out"
        )
    if any(math.isclose(scale, guidance, rel_tol=ALIKE) for scale in scales):
        raise RecipeError(f"--more-guidance: got {guidance:g}, at which it is calibrated anyway; leave it out")
    tables = {own.steps: table}
    for count in counts:
        try:
            tables[count] = sampler_table(source.config, source.scheduler_config, count, eta=own.eta)
        except SamplerError as error:
            raise SamplerError(f"--more-steps {count}: {error}") from error
    return tuple(
        Sampling(count, scale, each, step_groups_at(each.timesteps, table.timesteps, step_groups))
        for count, each in sorted(tables.items())
        for scale in sorted({guidance, *scales})
        if (count, scale) != (own.steps, guidance)
    )
