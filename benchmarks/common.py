"""Shared by the benchmark scripts: calibrate in memory, evaluate on held-out seeds, print a table."""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dq_toolchain.calibrate.compare.grid import parse_bits
from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.data.rollouts import Rollouts, rollouts_of
from dq_toolchain.calibrate.data.samples import held_out_seeds
from dq_toolchain.calibrate.data.trajectories import Trajectories
from dq_toolchain.calibrate.finalize import finalize
from dq_toolchain.calibrate.fitting.phase import Work, phases_of
from dq_toolchain.calibrate.fitting.run import fit_network
from dq_toolchain.calibrate.methods import resolve
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.calibrate.ranges.measure import Histograms, choose_all, observe_rollouts
from dq_toolchain.calibrate.ranges.quantized import quantize_with
from dq_toolchain.calibrate.work.checkpoint import CheckpointFile
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.metrics import psnr
from dq_toolchain.toolchain.recipe.loading import load_recipe
from dq_toolchain.toolchain.recipe.sections import Recipe
from dq_toolchain.toolchain.sampler.table import SamplerTable
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork
from dq_toolchain.toolchain.verdict.features import class_agreement, extractor_for, frechet_distance

Settings = dict[str, dict[str, Any]]
Overrides = Mapping[str, Mapping[str, Any]]


class NoCheckpoint(CheckpointFile):
    """A benchmark starts afresh every time."""

    def __init__(self) -> None:
        super().__init__(Path(), "")

    def load(self) -> None:
        return None

    def part(self, number: int) -> CheckpointFile:
        return self

    def before(self, phase: str) -> CheckpointFile:
        return NoCheckpoint()

    def save(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        return None


class WarmUp(NoCheckpoint):
    """What the first stage of a fit left, kept in memory: fits that begin alike go on from there."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: tuple[dict[str, Tensor], dict[str, Any]] | None = None

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:  # type: ignore[override]
        return None if self.kept is None else copy.deepcopy(self.kept)

    def save(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        if self.kept is None and (state["stage"], state["iteration"]) == (1, 0):
            self.kept = copy.deepcopy((dict(tensors), dict(state)))


@dataclass(frozen=True)
class Prepared:
    """FP32 rollouts and histograms of one calibration seed; every method of that seed starts here."""

    recipe: Recipe
    context: Context
    targets: Rollouts
    histograms: Histograms


def merged(*overrides: Overrides) -> Settings:
    """Settings of a recipe; the later ones win."""
    found: Settings = {}
    for layer in overrides:
        for section, values in layer.items():
            found.setdefault(section, {}).update(values)
    return found


def recipe_of(*overrides: Overrides) -> Recipe:
    return load_recipe(None, merged(*overrides))


def recorded(rows: Iterable[dict[str, Any]], file: Path | None) -> Iterator[dict[str, Any]]:
    """The rows as they come; ``file`` holds all that came so far, as JSON."""
    found = []
    for row in rows:
        found.append(row)
        if file:
            file.write_text(json.dumps(found, indent=1) + "\n")
        yield row


def study_parser(description: str | None) -> argparse.ArgumentParser:
    """Arguments of a study: which model, steps and bits, how many calibration and held-out seeds."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="diffusers folder; default: the embedded model")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--bits", default="W4A8")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--held-out", type=int, default=256)
    parser.add_argument("--samples", type=int, help="calibration trajectories; default: the study's own")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    return parser


def study_recipe(arguments: argparse.Namespace, calibrate: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The recipe settings that ``study_parser``'s arguments stand for; no guidance."""
    ((weight_bits, activation_bits),) = parse_bits(arguments.bits)
    return {
        "model": {"path": arguments.model},
        "quantize": {"weight_bits": weight_bits, "activation_bits": activation_bits},
        "sampler": {"guidance": 1.0, "steps": arguments.steps},
        "calibrate": {**calibrate, **({} if arguments.samples is None else {"samples": arguments.samples})},
    }


def prepare(recipe: Recipe) -> Prepared:
    context = setup(recipe)
    targets, histograms = observe_rollouts(context)
    return Prepared(recipe, context, targets, histograms)


def fit(
    prepared: Prepared, recipe: Recipe, *, iterations: bool = True, warm_up: WarmUp | None = None
) -> tuple[Artifact, float]:
    """The artifact that ``recipe`` gives from the prepared rollouts, and the seconds that fitting took.

    Args:
        warm_up: shared by fits with the same first stage; its seconds count in each of them.
    """
    work = work_of(prepared, recipe, NoCheckpoint() if warm_up is None else warm_up)
    fitted = fit_network(phases_of(resolve("accuquant").fit, recipe) if iterations else (), work)
    record = {"stages": fitted.stages}
    return finalize(work.network, prepared.context, record), fitted.seconds


def work_of(prepared: Prepared, recipe: Recipe, checkpoint: CheckpointFile) -> Work:
    """A network with the ranges that ``recipe`` chooses, on the prepared rollouts, not fitted yet."""
    context = prepared.context
    return Work(
        recipe=recipe,
        network=quantize_with(context, *choose_all(context, prepared.histograms, recipe.calibrate), recipe),
        trajectories=Trajectories(context, prepared.targets),
        chosen=None,
        block_options={},
        checkpoint=checkpoint,
        reporter=Reporter(quiet=True),
    )


class Judge:
    """FP32 samples of held-out seeds, kept, and the figures of an artifact against them."""

    def __init__(self, context: Context, seeds: int) -> None:
        self.context = context
        self.samples = self.context.draw(held_out_seeds(seeds))
        self.fp32 = self.run(self.context.prepared.network, self.context.table)
        self.extractor = extractor_for(self.fp32, self.context.model.folder)
        self.features, self.labels = self.extractor.features(self.fp32), self.extractor.labels(self.fp32)

    def run(self, unet: torch.nn.Module, table: SamplerTable) -> Tensor:
        """A network's samples, (S, C, H, W), in the order of ``fp32``."""
        set_step = unet.set_step if isinstance(unet, SimulatedNetwork) else None
        return rollouts_of(
            unet.to(self.context.device),
            table,
            self.samples,
            guidance=self.context.guidance,
            batch=64,
            device=self.context.device,
            set_step=set_step,
        ).latents[-1]

    def simulated(self, artifact: Artifact) -> Tensor:
        """The integer simulation's samples, (S, C, H, W), in the order of ``fp32``."""
        return self.run(SimulatedNetwork(artifact), artifact.table)

    def figures(self, artifact: Artifact) -> dict[str, float]:
        """The integer simulation on held-out seeds: PSNR (median, 10th percentile, of the pooled squared error,
        lowest), class agreement, Frechet distance."""
        samples = self.simulated(artifact)
        values = psnr(samples, self.fp32)
        return {
            "psnr": float(values.quantile(0.5)),
            "psnr_p10": float(values.quantile(0.1)),
            "psnr_pooled": float(-10 * torch.log10((10 ** (-values / 10)).mean())),
            "psnr_lowest": float(values.min()),
            "agreement": class_agreement(self.extractor.labels(samples), self.labels),
            "frechet": frechet_distance(self.extractor.features(samples), self.features),
        }
