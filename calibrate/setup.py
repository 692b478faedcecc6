"""A model made ready for calibration: loaded, sampler probed, sites found, samples drawn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from dq_toolchain.calibrate.insert import Prepared, prepare
from dq_toolchain.calibrate.methods.base import Method
from dq_toolchain.calibrate.samples import Samples, calibration_seeds, draw
from dq_toolchain.toolchain.denoiser import Denoiser
from dq_toolchain.toolchain.errors import ModelError, RecipeError
from dq_toolchain.toolchain.models import REFUSALS, Model, load_model
from dq_toolchain.toolchain.probe import load_scheduler, probe
from dq_toolchain.toolchain.recipe import Recipe
from dq_toolchain.toolchain.sampler_table import SamplerTable
from dq_toolchain.toolchain.step_groups import StepGroups, even_step_groups


@dataclass(frozen=True)
class Setup:
    """What every stage of a calibration works on.

    Attributes:
        table: the sampler as FP32 runs it.
    """

    model: Model
    table: SamplerTable
    step_groups: StepGroups
    prepared: Prepared
    samples: Samples
    device: torch.device

    @property
    def group_of_step(self) -> tuple[int, ...]:
        return tuple(g for g, steps in enumerate(self.step_groups) for _ in steps)


def setup(recipe: Recipe, method: Method | None = None) -> Setup:
    """Load, probe and look: everything that can refuse a recipe does so here, before any long work.

    Args:
        method: may refuse the sampler, and smooth the network.
    Raises:
        ModelError, SamplerError, RecipeError: see their texts.
    """
    device = choose_device(recipe.run.device)
    model = load_model(recipe.model.path)
    table = probe(load_scheduler(model.scheduler_config), recipe.sampler.steps, eta=recipe.sampler.eta)
    if method is not None and method.check is not None:
        method.check(table)
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

    run_once(model.unet)
    smooth = None if method is None else method.smooth
    divisors = {} if smooth is None else smooth(model.unet, table, samples)
    prepared = prepare(model.unet, recipe.quantize, run_once, divisors)
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
