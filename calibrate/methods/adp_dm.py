"""ADP-DM: timesteps in groups with quantization functions of their own, on calibration times of structural risk.

Wang et al. 2024, arXiv 2305.18723 (APQ-DM in its last version); the code was read, the paper is known at second hand.
Every step has importance weights over G quantization functions, which are searched by gradient: the weighted error of
discretization plus the weights' entropy falls until each step has one function. Calibration times are added one by one
where structural risk is least: they should be like all times (maximum mean discrepancy) and hold much error to learn
from. Differs: the code has weights per layer and channel; a device has one set of parameters per step group, so here a
step has one function, with a range for every site, and steps in a row that share one are a step group. The code takes
uncertainty of the weights for risk, here it is the error with one function for all steps. Operands of attention products
keep the range of all steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dq_toolchain.calibrate.data.trajectories import Trajectories
from dq_toolchain.calibrate.methods.base import Method, Record
from dq_toolchain.calibrate.methods.groups import with_step_groups
from dq_toolchain.calibrate.methods.ranges import MSE
from dq_toolchain.calibrate.work.host_reads import read_on_host
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.quant.hooks import hooks
from dq_toolchain.toolchain.quant.qparams import activation_type, fake_quantize, range_to_qparams
from dq_toolchain.toolchain.quant.site import Site
from dq_toolchain.toolchain.sampler.step_groups import StepGroups
from dq_toolchain.toolchain.sampler.transfer import to_device

GROUPS = 8
TINY = 1e-6
"""Least width of a histogram."""
PICKS, EACH = 64, 16
"""Times that are added to the calibration set, and samples of each."""
RISK = 0.1
"""Weight of the error to learn from, against likeness to all times."""
SAMPLES = 16
"""That risk and likeness are taken from."""
CANDIDATES, PER_OCTAVE = 24, 6
"""Ranges of a site: from the largest down, that many to half of it."""
NORM, BINS = 2.4, 16384
"""Of the errors; and of the histogram that they are computed from, which spans the largest range."""
ITERATIONS, RATE, ENTROPY, SHARP = 200, 0.2, 0.1, 4.0
"""Of the search: Adam's steps and rate; the weight that entropy reaches, as a share of the mean error; and how much the
logits of a step differ at the start, for errors that differ by their mean."""


@dataclass(frozen=True)
class Discretization:
    """``low``, ``high`` (L,): the largest range of each site. ``error`` (N, L, K): at every step with every candidate range,
    in the L2.4 norm, as a share of the site's mean."""

    low: Tensor
    high: Tensor
    error: Tensor


def by_structural_risk(trajectories: Trajectories) -> Tensor:
    """(N, M) bool: EACH samples for every pick of a step, all steps at least once."""
    some = trajectories.first(SAMPLES)
    everything = torch.ones(some.targets.outputs.shape[:2], dtype=torch.bool)
    error = discretization(some, everything, _sites(some)).error
    shared = error.sum(0).argmin(1)
    risk = error[:, torch.arange(error.shape[1]), shared].mean(1)
    counts = least_risk(likeness(some.targets.latents[:-1]), risk, PICKS)
    chosen = torch.zeros(trajectories.targets.outputs.shape[:2], dtype=torch.bool)
    generator = torch.Generator().manual_seed(trajectories.context.seed)
    for step, count in enumerate(counts.tolist()):
        chosen[step, torch.randperm(chosen.shape[1], generator=generator)[: max(1, EACH * count)]] = True
    return chosen


def likeness(latents: Tensor) -> Tensor:
    """(N, N): mean Gaussian kernel of the samples of any two steps, (N, M, ...) latents; its width is their median distance."""
    calls, count = latents.shape[:2]
    flat = latents.flatten(2).flatten(0, 1)
    distance = torch.cdist(flat, flat).square()
    kernel = torch.exp(-distance / distance.median().clamp_min(1e-12))
    return kernel.view(calls, count, calls, count).mean((1, 3))


def least_risk(likeness: Tensor, risk: Tensor, picks: int) -> Tensor:
    """(N,) how often each step is picked, one after the other where the structural risk of what is picked is least.

    That is the squared discrepancy of the picked steps from all steps, (w - u)' K (w - u), less RISK times their mean error.
    """
    calls = len(risk)
    counts, all_alike = torch.zeros(calls), torch.full((calls,), 1 / calls)
    relative = risk / risk.mean().clamp_min(1e-30)
    for number in range(picks):
        weights = (counts + torch.eye(calls)) / (number + 1)  # row t: one more of step t
        apart = weights - all_alike
        structural = ((apart @ likeness) * apart).sum(1) - RISK * weights @ relative
        counts[int(structural.argmin())] += 1
    return counts.long()


def group_steps(artifact: Artifact, trajectories: Trajectories) -> tuple[Artifact, Record]:
    """The artifact with the step groups that the search found, and a range of every site for each."""
    sites = [(index, site) for index, site in enumerate(artifact.sites) if site.operand == "input"]
    found = discretization(trajectories, by_structural_risk(trajectories), [site for _, site in sites])
    function, candidate = search(found.error, min(GROUPS, trajectories.calls))
    groups = runs(function.tolist())
    rows = [artifact.group_of_step[steps[0]] for steps in groups]
    scale, zero_point = artifact.scale[rows].clone(), artifact.zero_point[rows].clone()
    for column, (index, site) in enumerate(sites):
        scales, zeros = _candidates(found.low[column], found.high[column], site)
        taken = [int(candidate[function[steps[0]], column]) for steps in groups]
        scale[:, index], zero_point[:, index] = scales[taken], zeros[taken]
    changed = with_step_groups(artifact, groups, scale, zero_point)
    return changed, {"adp_dm": {"function_of_step": function.tolist()}}


def search(error: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(N,) the function of every step, and (count, L) the candidate range of every function and site.

    The functions start as those of steps that are served worst by the ones before, the importance weights by the errors with
    them. In every iteration each function takes the ranges that are best for its weights, and the weights follow the gradient.
    """
    start = _errors_with(error, _spread(error, count))
    logits = (-SHARP * start / start.mean(1, keepdim=True).clamp_min(1e-30)).requires_grad_()
    adam = torch.optim.Adam([logits], lr=RATE)
    for iteration in range(ITERATIONS):
        weights = logits.softmax(1)
        errors = _errors_with(error, _best(error, weights.detach()))
        entropy = -(weights * weights.clamp_min(1e-12).log()).sum(1).mean()
        share = ENTROPY * iteration / ITERATIONS * errors.mean()
        loss = (weights * errors).sum(1).mean() + share * entropy
        adam.zero_grad()
        loss.backward()
        adam.step()
    function = logits.detach().argmax(1)
    return function, _best(error, torch.nn.functional.one_hot(function, count).float())


def _spread(error: Tensor, count: int) -> Tensor:
    """(count, L): the candidates that are best for all steps, then those of the step that has most to gain, and so on."""
    least, found = error.amin(2).mean(1), [error.sum(0).argmin(1)]
    while len(found) < count:
        gain = _errors_with(error, torch.stack(found)).amin(1) - least
        found.append(error[int(gain.argmax())].argmin(1))
    return torch.stack(found)


def _best(error: Tensor, weights: Tensor) -> Tensor:
    """(G, L): the candidate with the least weighted error, (N, L, K) errors and (N, G) weights."""
    return torch.einsum("ng,nlk->glk", weights, error).argmin(2)


def _errors_with(error: Tensor, candidate: Tensor) -> Tensor:
    """(N, G): mean error over the sites of every step with every function."""
    return error.transpose(0, 1)[torch.arange(error.shape[1]), :, candidate].mean(1).T


def runs(function: list[int]) -> StepGroups:
    """Steps in a row that share a function."""
    return tuple(
        tuple(k for k, _ in steps) for _, steps in itertools.groupby(enumerate(function), lambda pair: pair[1])
    )


@torch.no_grad()
def discretization(trajectories: Trajectories, chosen: Tensor, sites: list[Site]) -> Discretization:
    """Measured at FP32 latents of the pairs ``chosen`` (N, M)."""
    count, device = len(sites), trajectories.context.device
    ends = torch.zeros(2, count, device=device)

    def widen(column: int, x: Tensor) -> None:
        low, high = torch.aminmax(x)
        ends[0, column], ends[1, column] = torch.minimum(ends[0, column], low), torch.maximum(ends[1, column], high)

    for _ in _watch(trajectories, chosen, sites, widen):
        pass
    low, high = read_on_host(ends, "ranges of all steps")
    counts = torch.zeros(count, BINS, dtype=torch.float64, device=device)
    spans = [(bottom, max(top, bottom + TINY)) for bottom, top in zip(low.tolist(), high.tolist(), strict=True)]

    def collect(column: int, x: Tensor) -> None:
        bottom, top = spans[column]
        counts[column] += torch.histc(x.float(), BINS, bottom, top)

    errors, sizes, numbers = [], [], []
    for _ in _watch(trajectories, chosen, sites, collect):
        seen = read_on_host(counts.clone(), "histograms of a step")
        found = [_of_site(seen[column], spans[column], site) for column, site in enumerate(sites)]
        errors.append(torch.stack([error for error, _ in found]))
        sizes.append(torch.stack([size for _, size in found]))
        numbers.append(seen.sum(1).clamp_min(1))
        counts.zero_()
    mean = (torch.stack(sizes).sum(0) / torch.stack(numbers).sum(0)).clamp_min(1e-30)
    relative = torch.stack(errors) / torch.stack(numbers)[..., None] / mean[:, None]
    return Discretization(low, high, relative.float())


def _of_site(counts: Tensor, span: tuple[float, float], site: Site) -> tuple[Tensor, Tensor]:
    """Summed errors (K,) with every candidate, and summed size (), of the values that the bins (B,) of a span count."""
    bottom, top = span
    used = counts > 0
    centre = (bottom + (torch.arange(BINS)[used] + 0.5) * ((top - bottom) / BINS)).float()
    scale, zero_point = _candidates(torch.tensor(bottom), torch.tensor(top), site)
    restored = fake_quantize(centre, scale[:, None], zero_point[:, None], activation_type(site.bits))
    norm = (restored - centre).abs().pow(NORM).double() * counts[used]
    return norm.sum(1), (centre.abs().pow(NORM).double() * counts[used]).sum()


def _candidates(low: Tensor, high: Tensor, site: Site) -> tuple[Tensor, Tensor]:
    """scale and zero_point (K,) of the ranges that are tried."""
    shrink = 2.0 ** (-torch.arange(CANDIDATES) / PER_OCTAVE)
    return range_to_qparams(low * shrink, high * shrink, activation_type(site.bits), site.scheme)


def _watch(
    trajectories: Trajectories, chosen: Tensor, sites: list[Site], look: Callable[[int, Tensor], None]
) -> Iterator[int]:
    """FP32 at the chosen pairs, step by step; ``look`` is given column and input of every site."""
    context = trajectories.context
    handles = (
        context.network.get_submodule(site.layer).register_forward_pre_hook(
            lambda _module, inputs, column=column: look(column, inputs[0])
        )
        for column, site in enumerate(sites)
    )
    with hooks(handles):
        for step in range(trajectories.calls):
            for rows in chosen[step].nonzero()[:, 0].split(context.rollout_batch):
                network = context.denoiser(context.network, trajectories.samples.select(rows))
                network(to_device(trajectories.latents(step)[rows], context.device), step)
            yield step


def _sites(trajectories: Trajectories) -> list[Site]:
    return [site for site in trajectories.context.prepared.sites if site.operand == "input"]


METHODS = (
    Method(
        "adp-dm",
        "Wang et al. 2024, arXiv 2305.18723, as its code, the paper at second hand",
        MSE,
        choose=by_structural_risk,
        finish=(group_steps,),
    ),
)
