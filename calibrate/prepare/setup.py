"""A model made ready for calibration: loaded, sampler probed, sites found, samples drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dq_toolchain.calibrate.data.conditioning import check_conditioning, conditioning_bank, guidance_of
from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.data.notes import Warn
from dq_toolchain.calibrate.data.samples import Samples, calibration_seeds, draw
from dq_toolchain.calibrate.methods.base import Method
from dq_toolchain.calibrate.network.activation_memory import activation_memory_of
from dq_toolchain.calibrate.network.channels_last import to_channels_last
from dq_toolchain.calibrate.network.copiers import CudaCopier
from dq_toolchain.calibrate.network.insert import prepare
from dq_toolchain.calibrate.network.kernel_choice import tell
from dq_toolchain.calibrate.network.precision import check_precision
from dq_toolchain.calibrate.network.streaming import Streaming
from dq_toolchain.calibrate.prepare.memory import room_on
from dq_toolchain.calibrate.prepare.samplings import samplings_of
from dq_toolchain.calibrate.prepare.step_vectors import check_step_vectors
from dq_toolchain.calibrate.work.workers import ALONE, Workers
from dq_toolchain.toolchain.disk.spill import Spill
from dq_toolchain.toolchain.errors import CalibrationError, ModelError, RecipeError
from dq_toolchain.toolchain.models.architectures import latent_shape
from dq_toolchain.toolchain.models.loading import REFUSALS, Model, load
from dq_toolchain.toolchain.models.lora import Lora
from dq_toolchain.toolchain.models.pipelines import unlike
from dq_toolchain.toolchain.models.sizes import not_a_multiple
from dq_toolchain.toolchain.models.source import Source, find_model, pipeline_index
from dq_toolchain.toolchain.recipe.sections import Recipe
from dq_toolchain.toolchain.sampler.denoiser import Denoiser
from dq_toolchain.toolchain.sampler.samplings import all_timesteps
from dq_toolchain.toolchain.sampler.scheduler import FILE, as_sampled, sampler_table
from dq_toolchain.toolchain.sampler.step_groups import even_step_groups

SMALL_NETWORK, SMALL_LATENT = 2**25, 2**14


def setup(
    recipe: Recipe,
    method: Method | None = None,
    warn: Warn = lambda _line: None,
    workers: Workers = ALONE,
    given: Model | None = None,
) -> Context:
    """Load, probe and look: everything that can refuse a recipe does so here, before any long work.

    Args:
        given: a model in memory, in the place of the one that [model] names.
        method: may refuse the sampler, and smooth the network.
        warn: is told of what the user should know and nothing refuses.
    Raises:
        ModelError, SamplerError, RecipeError, CalibrationError: see their texts.
    """
    device = choose_device(recipe.run.device)
    check_precision(recipe.run.precision, device)
    tell(device, warn)
    spill = Spill(recipe.run.out) if recipe.run.offload and device.type == "cpu" else None
    source = _source(recipe, warn, given)
    table = sampler_table(source.config, source.scheduler_config, recipe.sampler.steps, eta=recipe.sampler.eta)
    if method is not None and method.check is not None:
        method.check(table)
    check_step_vectors(recipe, method)
    step_groups = even_step_groups(table.calls, recipe.quantize.step_groups)
    guidance = guidance_of(source.config, recipe, warn)
    samplings = samplings_of(recipe, source, table, step_groups, guidance)
    check_conditioning(source.config, recipe)
    sides = latent_shape(source.config)[1:]
    if given is not None:
        model = replace(given, config=source.config, scheduler_config=source.scheduler_config)
    else:
        model = load(
            source, None if recipe.model.lora is None else Lora(recipe.model.lora, recipe.model.lora_scale), spill
        )
    if method is not None and method.check_network is not None:
        method.check_network(model.network)
    bank = conditioning_bank(model, recipe, warn)
    samples = draw(
        latent_shape(model.config), table, bank, calibration_seeds(recipe.run.seed, recipe.calibrate.samples)
    )
    probe_sample = samples.select(slice(0, 1))

    def run_once(fp32: nn.Module) -> Tensor:
        network = Denoiser(fp32, table, probe_sample.conditioning, guidance)
        try:
            return network(probe_sample.start, 0)
        except REFUSALS as error:
            raise ModelError(
                f"the network cannot be called with a latent of shape {tuple(probe_sample.start.shape)}: "
                f"{' '.join(str(error).split())}; check {model.place_of_size}"
            ) from error

    out = run_once(model.network)
    if out.shape != probe_sample.start.shape:
        raise ModelError(
            f"the network gives {tuple(out.shape)} for a latent of {tuple(probe_sample.start.shape)}; set "
            f"{model.place_of_size} to a size that it keeps"
        )
    fault = not_a_multiple(model.config, sides)
    if fault is not None:
        warn(f"{fault}: the network takes this size, not every target does; `dq-toolchain targets` lists which do")
    smooth = None if method is None else method.smooth
    divisors = {} if smooth is None else smooth(model.network, table, samples)
    prepared = prepare(model.network, recipe.quantize, run_once, divisors, all_timesteps(table, samplings))
    if spill is not None and given is None:
        spill.keep_parameters(prepared.network, but=[name for name, is_in in model.in_pages.items() if is_in])
    streaming = streaming_on(device) if recipe.run.offload else None
    if streaming is None:
        _place(prepared.network, device)
    if device.type != "cpu" and samples.start.dim() == 4:
        to_channels_last(prepared.network, device)
    if streaming is not None:
        streaming.attach(prepared.network)
        if not streaming.pinned:
            warn("--offload finds no blocks of diffusers in this network: all of its weights are on the GPU")
    room = room_on(device, workers)
    is_large = _is_large(prepared.network, samples)
    model = replace(
        model, network=prepared.network
    )  # convolutions that were split are not kept whole beside their parts
    return Context(
        model=model,
        prepared=prepared,
        table=table,
        guidance=guidance,
        step_groups=step_groups,
        bank=bank,
        samples=samples,
        device=device,
        seed=recipe.run.seed,
        is_large=is_large,
        activation_memory=activation_memory_of(prepared.network, run_once, results=prepared.has_results)
        if is_large or room is not None
        else None,
        workers=workers,
        precision=recipe.run.precision,
        room=room,
        streaming=streaming,
        spill=spill,
        parallel_steps=recipe.run.parallel_steps,
        steps=recipe.sampler.steps,
        samplings=samplings,
    )


def _source(recipe: Recipe, warn: Warn, given: Model | None) -> Source:
    """Where the model lies, with the configs that it is sampled with; what they decide is refused here, before weights are read."""
    section = recipe.model
    if given is None:
        source = find_model(section.path, section.variant, section.scheduler)
    else:
        source = Source(given.id, given.folder, given.folder, given.config, given.scheduler_config, ())
    own = given is None and section.scheduler is None
    source, notes = as_sampled(source, own=own, clip=recipe.sampler.clip)
    for line in (*notes, *unlike(_class_of(source, given))):
        warn(line)
    _check_json(source.config, str(source.network / "config.json"))
    _check_json(source.scheduler_config, FILE)
    return source


def _class_of(source: Source, given: Model | None) -> object:
    """The pipeline's class by its name, None of a network by itself."""
    if given is not None:
        return None if given.pipeline is None else type(given.pipeline).__name__
    return pipeline_index(source.folder).get("_class_name") if source.is_pipeline else None


def _check_json(config: Mapping[str, Any], file: str) -> None:
    """Refuse what the artifact's JSON could not hold at the end."""
    for key, value in config.items():
        try:
            json.dumps(value, allow_nan=False)
        except ValueError as error:
            raise ModelError(f"{file}: {key} is {value!r}, allowed are finite numbers; correct it") from error


def _is_large(network: nn.Module, samples: Samples) -> bool:
    return sum(p.numel() for p in network.parameters()) > SMALL_NETWORK or samples.start[0].numel() > SMALL_LATENT


def _place(network: nn.Module, device: torch.device) -> None:
    """Raises CalibrationError: the weights alone do not fit."""
    try:
        network.to(device)
    except torch.OutOfMemoryError as error:
        size = sum(parameter.nbytes for parameter in network.parameters())
        raise CalibrationError(
            f"the network's weights, {size / 2**30:.1f} GiB, do not fit into what is free of the memory of {device}; add "
            "--offload, which keeps those of its blocks on the host"
        ) from error


def streaming_on(device: torch.device) -> Streaming | None:
    """What ``--offload`` streams weights with: from the host to a GPU. None on the host itself."""
    return Streaming(device, CudaCopier(device)) if device.type == "cuda" else None


def choose_device(name: str) -> torch.device:
    """auto takes a GPU if there is one. Raises RecipeError for "cuda" without one.

    A GPU is told to compute alike every time, and with full float32 products: in shortened ones (TF32) FP32 would not be
    FP32, and sums of integers would not be exact.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise RecipeError("--device: got cuda, but torch sees no CUDA device; allowed here: auto, cpu")
    use_cuda = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    if use_cuda:
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda" if use_cuda else "cpu")
