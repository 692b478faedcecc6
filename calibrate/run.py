"""The order of work of `dq-toolchain calibrate`: model, sampler, FP32 rollouts, ranges, fit, artifact.

Every stage leaves a checkpoint in ``<out>/calibration.work``; a run that was killed continues there.
"""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dq_toolchain.calibrate.checkpoint import CheckpointFile, fingerprint
from dq_toolchain.calibrate.diagnose import at_smallest_scale, require_signal
from dq_toolchain.calibrate.finish import harden, held_out_reference
from dq_toolchain.calibrate.fit import Fit
from dq_toolchain.calibrate.insert import Prepared, QuantizedUNet, prepare
from dq_toolchain.calibrate.observer import choose_qparams, choose_weight_scale
from dq_toolchain.calibrate.problem import Problem
from dq_toolchain.calibrate.samples import Samples, calibration_seeds, draw, held_out_seeds
from dq_toolchain.calibrate.stages import plan
from dq_toolchain.calibrate.targets import Targets, observe
from dq_toolchain.toolchain.artifact import Artifact
from dq_toolchain.toolchain.denoiser import Denoiser
from dq_toolchain.toolchain.errors import ModelError, RecipeError
from dq_toolchain.toolchain.files import write_bytes
from dq_toolchain.toolchain.models import REFUSALS, Model, load_model
from dq_toolchain.toolchain.probe import load_scheduler, probe
from dq_toolchain.toolchain.progress import Reporter
from dq_toolchain.toolchain.qparams import activation_type, weight_type
from dq_toolchain.toolchain.recipe import Recipe
from dq_toolchain.toolchain.reference import Reference
from dq_toolchain.toolchain.sampler_table import SamplerTable
from dq_toolchain.toolchain.step_groups import StepGroups, even_step_groups

ROLLOUT_BATCH = 32
VALIDATION_SHARE = 8
"""One calibration sample in eight only judges iterates; it is never fitted (nor is any held-out sample)."""


@dataclass(frozen=True)
class Setup:
    """A model made ready: sampler probed, sites found, samples drawn."""

    model: Model
    table: SamplerTable
    step_groups: StepGroups
    prepared: Prepared
    samples: Samples
    device: torch.device

    @property
    def group_of_step(self) -> tuple[int, ...]:
        return tuple(g for g, steps in enumerate(self.step_groups) for _ in steps)


def setup(recipe: Recipe) -> Setup:
    """Load, probe and look: everything that can refuse a recipe does so here, before any long work.

    Raises:
        ModelError, SamplerError, RecipeError: see their texts.
    """
    device = choose_device(recipe.run.device)
    model = load_model(recipe.model.path)
    table = probe(load_scheduler(model.scheduler_config), recipe.sampler.steps, eta=recipe.sampler.eta)
    step_groups = even_step_groups(table.calls, recipe.quantize.step_groups)
    samples = draw(model.unet, table, recipe, calibration_seeds(recipe.run.seed, recipe.calibrate.samples))
    probe_sample = samples.select(slice(0, 1))

    def run_once(unet: nn.Module) -> None:
        network = Denoiser(unet, table, probe_sample.conditioning, recipe.sampler.guidance)
        try:
            network(probe_sample.start * table.input_scale[0], 0)
        except REFUSALS as error:
            raise ModelError(
                f"the UNet cannot be called with a latent of shape {tuple(probe_sample.start.shape)}: "
                f"{' '.join(str(error).split())}; check {model.folder / 'unet' / 'config.json'}"
            ) from error

    prepared = prepare(model.unet, recipe.quantize, run_once)
    prepared.unet.to(device)
    return Setup(model, table, step_groups, prepared, samples, device)


def choose_device(name: str) -> torch.device:
    """auto takes a GPU if there is one. Raises RecipeError for "cuda" without one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise RecipeError("--device: got cuda, but torch sees no CUDA device; allowed here: auto, cpu")
    use_cuda = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    if use_cuda:
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
    return torch.device("cuda" if use_cuda else "cpu")


def calibrate(recipe: Recipe, reporter: Reporter) -> tuple[Path, Artifact, Reference]:
    """Calibrate and write ``<out>/calibration``.

    Returns:
        The artifact's folder, the artifact and its held-out rollouts.
    Raises:
        ToolchainError: bad input, a site that cannot be calibrated, or a folder that cannot be written.
    """
    folder = recipe.run.out / "calibration"
    work = recipe.run.out / "calibration.work"
    state = setup(recipe)
    write_bytes(
        work / "README.txt",
        b"Checkpoints of an unfinished calibration; `dq-toolchain calibrate` continues from them.\n",
    )
    settings = recipe.model_dump(mode="json", exclude={"run": {"out"}, "export": True, "reference": True})
    identity = fingerprint(
        settings, state.model.weight_hash, state.model.config, state.model.scheduler_config, versions()
    )
    targets, scale, zero_point = _ranges(recipe, state, work / "ranges.safetensors", identity, reporter)
    raised = at_smallest_scale(state.prepared.sites, scale)
    if raised:
        reporter.warn(f"activations too small for an fp16 scale, quantized coarser than chosen: {', '.join(raised)}")
    network = quantize_with(state, scale, zero_point, recipe)
    problem = Problem(
        state.table,
        recipe.sampler.guidance,
        state.samples,
        targets,
        max(1, recipe.calibrate.samples // VALIDATION_SHARE),
        recipe.calibrate,
        recipe.run.seed,
        state.device,
    )
    if recipe.calibrate.steps == "growth":
        problem = problem.with_growth(network, state.prepared.unet)
    fit = Fit(
        network, problem, plan(recipe.calibrate, state.step_groups), CheckpointFile(work / "fit.safetensors", identity)
    )
    with reporter.task("fitting", fit.total_iterations) as advance:
        stages = fit.run(advance)
    record = {
        "recipe": settings,
        "seeds": {"calibration": recipe.run.seed, "held_out": recipe.reference.seeds},
        "versions": versions(),
        "stages": stages,
        "growth": None if problem.growth is None else [round(g, 4) for g in problem.growth.tolist()],
        "at_smallest_scale": raised,
        "device": state.device.type,
    }
    network.cpu()
    state.prepared.unet.cpu()
    artifact = harden(
        network, state.prepared, state.model, state.table, recipe.sampler.guidance, state.step_groups, record
    )
    held_out = draw(state.model.unet, state.table, recipe, held_out_seeds(recipe.reference.seeds))
    batches = -(-len(held_out) // ROLLOUT_BATCH)
    with reporter.task("held-out rollouts", 3 * batches * state.table.calls) as advance:
        reference = held_out_reference(artifact, state.prepared.unet, held_out, ROLLOUT_BATCH, advance)
    artifact.save(folder, reference)
    shutil.rmtree(work, ignore_errors=True)
    return folder, artifact, reference


def quantize_with(state: Setup, scale: torch.Tensor, zero_point: torch.Tensor, recipe: Recipe) -> QuantizedUNet:
    """The trainable network with the given activation parameters (G, L) and searched weight scales."""
    layers = {site.layer: site for site in state.prepared.sites if site.weight_bits is not None}
    weights = {
        name: choose_weight_scale(
            state.prepared.unet.get_parameter(f"{name}.weight"), weight_type(site.weight_bits or 8)
        )
        for name, site in layers.items()
    }
    network = QuantizedUNet(
        state.prepared, scale, zero_point, weights, state.group_of_step, recipe.calibrate.rounding == "learned"
    )
    return network.to(state.device)


def _ranges(
    recipe: Recipe, state: Setup, path: Path, identity: str, reporter: Reporter
) -> tuple[Targets, torch.Tensor, torch.Tensor]:
    checkpoint = CheckpointFile(path, identity)
    saved = checkpoint.load()
    if saved is not None:
        tensors = saved[0]
        return Targets(tensors["latents"], tensors["outputs"]), tensors["scale"], tensors["zero_point"]
    batches = -(-len(state.samples) // ROLLOUT_BATCH)
    with reporter.task("FP32 rollouts", batches * state.table.calls) as advance:
        targets, histograms = observe(
            state.prepared,
            state.table,
            state.samples,
            recipe.sampler.guidance,
            ROLLOUT_BATCH,
            state.device,
            state.group_of_step,
            advance,
        )
    require_signal(state.prepared.sites, histograms)
    chosen = [
        [
            choose_qparams(
                histogram, activation_type(site.bits), site.scheme, recipe.calibrate.ranges, recipe.calibrate.percentile
            )
            for site, histogram in zip(state.prepared.sites, row, strict=True)
        ]
        for row in histograms
    ]
    scale = torch.stack([torch.stack([s for s, _ in row]) for row in chosen])
    zero_point = torch.stack([torch.stack([z for _, z in row]) for row in chosen])
    checkpoint.save(
        {"latents": targets.latents, "outputs": targets.outputs, "scale": scale, "zero_point": zero_point}, {}
    )
    return targets, scale, zero_point


def versions() -> dict[str, Any]:
    """Library versions that a calibration depends on."""
    return {name: version(name) for name in ("dq-toolchain", "torch", "diffusers", "numpy")} | {
        "python": platform.python_version()
    }
