"""From a scheduler_config.json to diffusers' scheduler; whatever that raises becomes one line with what helps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dq_toolchain.toolchain.errors import SamplerError

NOT_FINITE = {text: float(text) for text in ("Infinity", "-Infinity", "NaN")}  # as a config in JSON spells them
LARGEST = 100_000  # of every whole number in a config; published ones go to 4096, and memory grows with some of them
USUAL = (
    "DDIMScheduler",
    "EulerDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
    "FlowMatchEulerDiscreteScheduler",
)

Suspects = Mapping[str, tuple[Any, ...]]
MEMORY: Suspects = {"skip_prk_steps": (False,)}
CHANNELS: Suspects = {"variance_type": ("learned", "learned_range")}


def load_scheduler(config: Mapping[str, Any]) -> Any:
    """The diffusers scheduler of a config dict (scheduler_config.json), chosen by its ``_class_name``.

    Options that the class does not know are ignored, as in diffusers: configs carry those of other schedulers too.
    Infinity and NaN may be spelled as text, as JSON that has no such numbers holds them.

    Raises:
        SamplerError: ``_class_name`` is missing or not a scheduler of diffusers, a number is out of bounds, or the class
            refuses an option.
    """
    import diffusers.schedulers as library  # takes seconds; only whoever needs a scheduler pays

    name: Any = config.get("_class_name")
    if name not in (entry for entry in dir(library) if entry.endswith("Scheduler")):
        raise SamplerError(
            "scheduler_config.json: _class_name must be a scheduler of diffusers such as "
            f"{', '.join(USUAL)}; got {name!r}, correct it"
        )
    for option, value in config.items():
        if isinstance(value, int) and abs(value) > LARGEST:
            raise SamplerError(
                f"scheduler_config.json: {option} is {value:.4g}, allowed are whole numbers up to {LARGEST}; correct it"
            )
    numbers = {
        option: NOT_FINITE.get(value, value) if isinstance(value, str) else value for option, value in config.items()
    }
    with errors_of(name, config):
        return getattr(library, name).from_config(numbers)


def suspects_in(config: Mapping[str, Any], suspects: Suspects) -> str:
    active = [f"{option}={config[option]!r}" for option, values in suspects.items() if config.get(option) in values]
    return f" (likely because of {', '.join(active)})" if active else ""


@contextmanager
def errors_of(name: str, config: Mapping[str, Any]) -> Iterator[None]:
    """Whatever a scheduler raises, as one line of ours."""
    try:
        yield
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if suspects := suspects_in(config, CHANNELS):
            raise SamplerError(
                f"{name} takes a variance that the network predicts{suspects}, which is left aside here as by the pipelines of DiT "
                f"and PixArt; set variance_type to {'fixed_small' if 'DDPM' in name else 'null'} in a copy of "
                "scheduler/scheduler_config.json, and name its folder with --scheduler"
            ) from error
        remedy = "install it, or" if isinstance(error, ImportError) else "change --steps, or"
        raise SamplerError(
            f"{name} failed ({reason[:300]}){suspects_in(config, MEMORY)}; {remedy} name the folder of another "
            "scheduler_config.json with --scheduler"
        ) from error
