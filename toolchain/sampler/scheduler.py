"""A model's sampler as diffusers would run it: which scheduler class, with which options, and what its pipeline changes.

The class that ``model_index.json`` names wins over the one in ``scheduler_config.json``, and some pipelines correct the configs
of old models when they are loaded. Both are asked of diffusers itself, and everything that comes out another than written is said.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from dq_toolchain.toolchain.errors import SamplerError
from dq_toolchain.toolchain.models.architectures import ARCHITECTURES, latent_shape
from dq_toolchain.toolchain.models.source import Source, pipeline_index
from dq_toolchain.toolchain.sampler.diffusers_scheduler import load_scheduler
from dq_toolchain.toolchain.sampler.probe import CLIPPING, probe
from dq_toolchain.toolchain.sampler.start_probe import probe_starts
from dq_toolchain.toolchain.sampler.starts import Start
from dq_toolchain.toolchain.sampler.table import SamplerTable

FILE = "scheduler/scheduler_config.json"
OTHER_DRAWS = ("KDPM2AncestralDiscreteScheduler",)
"""Schedulers that draw no noise at a call before the last one that draws some."""


def as_sampled(source: Source, *, own: bool = True, clip: bool = True) -> tuple[Source, tuple[str, ...]]:
    """The source with the configs that diffusers' pipeline would run with, and a line for everything that changed.

    Args:
        own: the scheduler is the model's own; one given in its place is taken as it is.
        clip: False sets every option that limits predicted images to false.
    Raises:
        ModelError: model_index.json is damaged. SamplerError: the scheduler cannot be built.
    """
    config, network, notes = dict(source.scheduler_config), dict(source.config), list[str]()
    if source.is_pipeline:
        index = pipeline_index(source.folder)
        name = index.get("_class_name")
        if own:
            notes += _class_of_index(config, index.get("scheduler"))
            notes += _corrected_by_pipeline(config, network, name)
        notes += _corrected_network(network, config, name)
    notes += [] if clip else _unclipped(config)
    if config.get("_class_name") in OTHER_DRAWS:
        notes.append(
            f"{config['_class_name']} draws noise at some calls only, the samplers here at each: with the same seed `generate` "
            "draws another picture than diffusers, as good a one"
        )
    return replace(source, config=network, scheduler_config=plain(config)), tuple(notes)


def sampler_table(
    network: Mapping[str, Any], config: Mapping[str, Any], steps: int, *, eta: float = 0.0
) -> SamplerTable:
    """The table of a scheduler's config for a network's latents.

    Args:
        network: config of the network; its latent's size decides the timesteps where the scheduler shifts them by it.
    Raises:
        ModelError: the network's config has no size. SamplerError: see ``probe``.
    """
    scheduler = load_scheduler(config)
    return probe(scheduler, steps, eta=eta, timesteps=_timesteps(network, scheduler.config, steps))


def sampler_starts(
    network: Mapping[str, Any], config: Mapping[str, Any], steps: int, *, eta: float = 0.0
) -> tuple[Start, ...]:
    """Where the sampler of ``sampler_table`` can begin with a picture. Raises SamplerError: see ``probe_starts``."""
    scheduler = load_scheduler(config)
    timesteps = _timesteps(network, scheduler.config, steps)
    table = probe(scheduler, steps, eta=eta, timesteps=timesteps)
    return probe_starts(scheduler, steps, table, eta=eta, timesteps=timesteps)


def _timesteps(network: Mapping[str, Any], config: Mapping[str, Any], steps: int) -> Mapping[str, Any]:
    """What the pipeline gives to ``set_timesteps`` beside the number of steps."""
    architecture = ARCHITECTURES.get(network["_class_name"])
    if architecture is not None and architecture.packed is not None:
        _, height, width = latent_shape(network)
        tokens = (height // architecture.packed.patch) * (width // architecture.packed.patch)
        found: Mapping[str, Any] = architecture.packed.timesteps(steps, tokens, config)
        return found
    mu = _shift(network, config)
    return {} if mu is None else {"mu": mu}


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config as JSON holds it: infinity and NaN as text, which ``load_scheduler`` reads as numbers again."""
    return {key: _plain(value) for key, value in config.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
    if isinstance(value, Mapping):
        return plain(value)
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _class_of_index(config: dict[str, Any], entry: Any) -> Iterator[str]:
    library, name = entry if isinstance(entry, list) else (None, None)
    if name is None:
        return
    if library != "diffusers":
        raise SamplerError(
            f"model_index.json: the scheduler {name!r} is code of {library!r}, allowed are schedulers of diffusers; "
            "give the folder of one with --scheduler"
        )
    named = config.get("_class_name")
    if named not in (None, name):
        yield f"model_index.json names {name}, {FILE} {named}: {name} is taken, as diffusers does"
    config["_class_name"] = name


def _corrected_by_pipeline(config: dict[str, Any], network: Mapping[str, Any], name: Any) -> Iterator[str]:
    """What the pipeline's class makes of its scheduler's config: Stable Diffusion's corrects what its first uploads had wrong
    (steps_offset, clip_sample), DDIM's and PNDM's take their own scheduler whatever the config names."""
    scheduler = load_scheduler(config)
    before, class_before = dict(scheduler.config), type(scheduler).__name__
    scheduler = _scheduler_in(name, scheduler, _Configured(network))
    if type(scheduler).__name__ != class_before:
        config["_class_name"] = type(scheduler).__name__
        yield f"{name} samples with {config['_class_name']}, not with the {class_before} of {FILE}"
        return
    for option, value in scheduler.config.items():
        if not option.startswith("_") and before.get(option) != value:
            config[option] = value
            yield f"{name} sets {option} of the scheduler to {value!r}, {FILE} has {before.get(option)!r}"


def _corrected_network(network: dict[str, Any], scheduler_config: Mapping[str, Any], name: Any) -> Iterator[str]:
    """What it makes of its network's config, whatever scheduler is put into it: the sample_size of the first uploads."""
    stub, size = _Configured(network), network.get("sample_size")
    _scheduler_in(name, load_scheduler(scheduler_config), stub)
    if stub.config["sample_size"] != size:
        network["sample_size"] = stub.config["sample_size"]
        yield f"{name} sets sample_size to {network['sample_size']}, the network's config.json has {size!r}"


class _Configured:
    """As much of a network as the constructor of a pipeline looks at."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        from diffusers.configuration_utils import FrozenDict

        self._internal_dict = FrozenDict({"sample_size": None, **config})

    @property
    def config(self) -> Any:
        return self._internal_dict


def _scheduler_in(name: Any, scheduler: Any, network: _Configured) -> Any:
    """The scheduler of a pipeline that has nothing else; the scheduler itself where diffusers has no such pipeline."""
    import diffusers

    kind = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not isinstance(kind, type) or not issubclass(kind, diffusers.DiffusionPipeline):
        return scheduler
    parameters = list(inspect.signature(kind).parameters.values())
    parts: dict[str, Any] = {
        p.name: None for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
    }
    parts |= {"unet": network} if "unet" in parts else {}
    parts |= {"requires_safety_checker": False} if any(p.name == "requires_safety_checker" for p in parameters) else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return kind(**parts | {"scheduler": scheduler}).scheduler
    except Exception:  # a pipeline that cannot be without its other parts changes no scheduler
        return scheduler


def _unclipped(config: dict[str, Any]) -> Iterator[str]:
    options = [option for option in CLIPPING if load_scheduler(config).config.get(option) is True]
    for option in options:
        config[option] = False
        yield (f"--no-clip sets {option} of {config['_class_name']} to false: predicted images are not limited while "
               "sampling; FP32 and integers both sample so")  # fmt: skip
    if not options:
        yield "--no-clip changes nothing: the scheduler does not clip"


def _shift(network: Mapping[str, Any], config: Mapping[str, Any]) -> float | None:
    """``mu`` of schedulers that shift their timesteps by the size of the picture, as the Stable Diffusion 3 pipeline has it."""
    if not config.get("use_dynamic_shifting"):
        return None
    from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift

    patch, (_, height, width) = network.get("patch_size"), latent_shape(network)
    if not isinstance(patch, int) or patch < 1:
        raise SamplerError(
            f"{FILE}: use_dynamic_shifting is true, which counts the patches of a picture, and this network has none; set it to "
            "false and shift to a number in a copy of the file, and name its folder with --scheduler"
        )
    patches = (height // patch) * (width // patch)
    lengths = (config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096))
    try:
        mu = float(calculate_shift(patches, *lengths, config.get("base_shift", 0.5), config.get("max_shift", 1.16)))
    except (TypeError, ArithmeticError) as error:
        raise SamplerError(
            f"{FILE}: {error} in base_image_seq_len, max_image_seq_len, base_shift and max_shift; they must be numbers, and the "
            "two lengths must differ"
        ) from error
    return mu
