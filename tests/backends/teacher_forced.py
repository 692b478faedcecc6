"""Calls of a written program, and what teacher-forced comparison must find: shared by targets with Q/DQ around products."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from dq_toolchain.backends.common.qdq.conformance import Comparison, Forced, compare
from dq_toolchain.backends.common.qdq.plan import Plan
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork


def inputs_of(artifact: Artifact, plan: Plan, k: int, seed: int = 0) -> dict[str, Tensor]:
    """A random sample at step k, with a row of the reference's conditioning."""
    sample = torch.randn(plan.reference.start[:1].shape, generator=torch.Generator().manual_seed(seed))
    row, group = seed % plan.reference.seeds, artifact.group_of_step[k]
    rows = artifact.step_rows
    timestep = torch.tensor([artifact.table.timesteps[k]], dtype=torch.float32)
    return {
        "sample": sample,
        **({"timestep": timestep} if rows is None else {"step_vectors": rows[k : k + 1]}),
        **plan.reference.conditioning.select(slice(row, row + 1)).cond,
        **({} if plan.ranges is None else {"ranges": plan.ranges[group : group + 1]}),
    }


def comparisons(
    artifact: Artifact,
    plan: Plan,
    sites: Mapping[str, Mapping[str, int]],
    forced: Callable[[str], Forced],
    seeds: int = 4,
) -> list[Comparison]:
    """The first step of every step group, some seeds each."""
    simulated, names, found = SimulatedNetwork(artifact), list(sites), list[Comparison]()
    for group, steps in enumerate(artifact.step_groups):
        name, k = names[group if len(names) > 1 else 0], steps[0]
        execute = forced(name)
        found += [
            compare(execute, sites[name], artifact, simulated, k, inputs_of(artifact, plan, k, seed))
            for seed in range(seeds)
        ]
    return found


def check_fp32(found: Sequence[Comparison]) -> None:
    """The integers of the simulation but for ties that sums in another order decide."""
    assert all(one.output_error <= 2e-6 for one in found)
    assert all(one.largest <= 1 for one in found)
    assert sum(one.different for one in found) <= 1e-5 * sum(one.places for one in found) + 1


def check_fp16(found: Sequence[Comparison]) -> None:
    """A few integers by one: fp16 is coarser than the simulation."""
    assert all(one.output_error <= 5e-3 for one in found)
    assert all(one.largest <= 1 for one in found)
    assert 0 < sum(one.different for one in found) < 0.03 * sum(one.places for one in found)
