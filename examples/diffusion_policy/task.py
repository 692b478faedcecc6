"""A small pushing task in the plane: an agent, which is a disc, pushes another disc to a goal. Lengths are millimetres.

The table is 400 mm x 400 mm with its centre at 0. A command is where the agent shall be; it moves there by at most ``SPEED`` a
control step. An object that it overlaps afterwards is pushed out along the line of centres: no friction at the contact, none of
the object's own momentum, so that an agent that pushes beside the centre loses the object sideways and has to correct all the time.

Everything is computed for many tables at once, in float64, from a seed: the same seed is the same task, to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

HALF = 200.0
"""Half a side of the table."""
AGENT, OBJECT = 15.0, 30.0
"""Radii."""
CONTACT = AGENT + OBJECT
SPEED = 10.0
"""Of the agent, a control step."""
REACHED = 10.0
"""The task is done when the object's centre is so near to the goal."""
HORIZON, EXECUTED, CHUNKS = 16, 8, 20
"""Control steps of an action chunk; how many of them are executed before the next; chunks of an episode at most."""
UNIT, TOLD_UNIT = 50.0, 100.0
"""What 1 is in the numbers that a policy gives, and in those that it is told."""
OBSERVED = 10
"""Numbers of an observation."""


@dataclass(frozen=True)
class State:
    """Centres on N tables, each (N, 2) float64."""

    agent: Tensor
    object: Tensor
    goal: Tensor

    def __getitem__(self, rows: Tensor | slice) -> State:
        return State(self.agent[rows], self.object[rows], self.goal[rows])

    @property
    def distance(self) -> Tensor:
        """From the object to the goal: (N,)."""
        return (self.goal - self.object).norm(dim=1)


Policy = Callable[[State, int, Tensor], Tensor]
"""(state of M tables, number of the chunk, the tables' numbers (M,)) -> commands of an action chunk, (M, HORIZON, 2) mm."""


def starts(count: int, seed: int) -> State:
    """Start positions: the object at least 60 mm from its goal, the agent not on the object."""
    draws = torch.Generator().manual_seed(seed)

    def place(half: float, away: Callable[[Tensor], Tensor]) -> Tensor:
        found = torch.empty(0, 2, dtype=torch.float64)
        places = torch.zeros(count, 2, dtype=torch.float64)
        missing = torch.ones(count, dtype=torch.bool)
        while missing.any():
            found = (2 * torch.rand(count, 2, generator=draws, dtype=torch.float64) - 1) * half
            fits = missing & away(found)
            places[fits], missing = found[fits], missing & ~fits
        return places

    goal = place(120.0, lambda found: found.norm(dim=1) >= 0)
    thing = place(120.0, lambda found: (found - goal).norm(dim=1) >= 60)
    agent = place(180.0, lambda found: (found - thing).norm(dim=1) >= CONTACT + 5)
    return State(agent, thing, goal)


def move(state: State, command: Tensor) -> State:
    """One control step. command: (N, 2) mm, where the agent shall be."""
    way = command.to(torch.float64) - state.agent
    agent = state.agent + way * (SPEED / way.norm(dim=1, keepdim=True).clamp_min(SPEED))
    agent = agent.clamp(AGENT - HALF, HALF - AGENT)
    apart = state.object - agent
    distance = apart.norm(dim=1, keepdim=True)
    outward = apart / distance.clamp_min(1e-9)
    thing = torch.where(distance < CONTACT, agent + outward * CONTACT, state.object)
    return State(agent, thing.clamp(OBJECT - HALF, HALF - OBJECT), state.goal)


def expert(state: State) -> Tensor:
    """The scripted expert's command, (N, 2) mm: around the object to the side away from the goal, then push."""
    to_goal, apart = state.goal - state.object, state.agent - state.object
    left, far = state.distance[:, None], apart.norm(dim=1, keepdim=True)
    ahead = to_goal / left.clamp_min(1e-9)
    beside = apart - (apart * ahead).sum(1, keepdim=True) * ahead
    behind = torch.atan2(-ahead[:, 1], -ahead[:, 0])
    angle = torch.atan2(apart[:, 1], apart[:, 0])
    off = torch.remainder(angle - behind + math.pi, 2 * math.pi) - math.pi  # 0: the object is between agent and goal
    push = state.object - ahead * (CONTACT - left.clamp_max(SPEED)) - beside
    approach = state.object - ahead * (CONTACT + 2)
    turned = angle - off.sign() * off.abs().clamp_max(0.35)
    radius = (CONTACT + 15 + 0.8 * (far[:, 0] - CONTACT - 15)).clamp_min(CONTACT + 15)
    around = state.object + radius[:, None] * torch.stack([turned.cos(), turned.sin()], dim=1)
    placed = (off.abs() < 0.35)[:, None]
    command = torch.where(placed & (far < CONTACT + 12), push, torch.where(placed, approach, around))
    return torch.where(left < 3.0, state.agent, command)


def planned(state: State) -> Tensor:
    """Where the expert takes the agent in the next HORIZON control steps: (N, HORIZON, 2) mm."""
    places = []
    for _ in range(HORIZON):
        state = move(state, expert(state))
        places.append(state.agent)
    return torch.stack(places, dim=1)


def observed(state: State) -> Tensor:
    """What a policy is told of the state: (N, OBSERVED) float32."""
    parts = (state.agent, state.object, state.goal, state.object - state.agent, state.goal - state.object)
    return (torch.cat(parts, dim=1) / TOLD_UNIT).to(torch.float32)


def to_numbers(plan: Tensor, agent: Tensor) -> Tensor:
    """(N, HORIZON, 2) mm, agent (N, 2) mm at the start of the chunk -> (N, 2, HORIZON) float32: what a policy samples."""
    return ((plan - agent[:, None]) / UNIT).transpose(1, 2).to(torch.float32)


def to_commands(numbers: Tensor, agent: Tensor) -> Tensor:
    """What ``to_numbers`` undoes."""
    return numbers.to(torch.float64).transpose(1, 2) * UNIT + agent[:, None]


def demonstrations(episodes: int, seed: int, steps: int = 120, every: int = 4) -> tuple[Tensor, Tensor]:
    """Observations (M, OBSERVED) and the expert's action chunks (M, 2, HORIZON), float32.

    The agent is disturbed on its way, so that states are seen in which a policy of small errors comes; what the expert would do
    from each of them, undisturbed, is the chunk (Laskey et al., "DART", 2017).
    """
    draws = torch.Generator().manual_seed(seed)
    state, seen, chunks = starts(episodes, seed + 1), [], []
    drift = torch.zeros(episodes, 2, dtype=torch.float64)
    for step in range(steps):
        drift = 0.9 * drift + torch.randn(episodes, 2, generator=draws, dtype=torch.float64) * 1.5
        if step % every == 0:
            seen.append(observed(state))
            chunks.append(to_numbers(planned(state), state.agent))
        state = move(state, expert(state) + drift)
    return torch.cat(seen), torch.cat(chunks)


def reached(policy: Policy, state: State) -> Tensor:
    """Which tables a policy solves, (N,) bool: it plans HORIZON steps, EXECUTED of them are executed, and so on."""
    left = torch.arange(len(state.agent))
    solved = torch.zeros(len(left), dtype=torch.bool)
    for chunk in range(CHUNKS):
        if not len(left):
            break
        plan = policy(state, chunk, left)
        open_ = torch.ones(len(left), dtype=torch.bool)
        for step in range(EXECUTED):
            state = move(state, plan[:, step])
            open_ &= state.distance >= REACHED
        solved[left[~open_]] = True
        state, left = state[open_], left[open_]
    return solved
