"""What a calibration method is: settings of the recipe, and what it puts into the phases that all methods share.

The phases, in order: smoothing of the network (``smooth``), FP32 rollouts, the calibration set (``choose``) on which
ranges are measured, the fit (``fit``), and changes to the finished artifact (``finish``), corrections at run time among
them. A method in a file says what is its own; what it stands on is its ``base``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, TypeVar

from torch import Tensor, nn

from dq_toolchain.calibrate.data.samples import Samples
from dq_toolchain.calibrate.data.trajectories import Trajectories
from dq_toolchain.calibrate.fitting.blocks import BLOCKS
from dq_toolchain.calibrate.fitting.phase import Phase
from dq_toolchain.calibrate.work.constants import constants_of
from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.sampler.table import SamplerTable

T = TypeVar("T")
Settings = Mapping[str, Mapping[str, Any]]
Record = dict[str, Any]
Smooth = Callable[[nn.Module, SamplerTable, Samples], Mapping[str, Tensor]]
"""(FP32 UNet, table, samples) -> positive divisors (in,) of the input channels, by name of the convolution."""
Choose = Callable[[Trajectories], Tensor]
"""-> (N, M) bool: the (step, sample) pairs that ranges are measured and blocks are reconstructed on."""
Finish = Callable[[Artifact, Trajectories], tuple[Artifact, Record]]
"""-> the changed artifact and what to record."""
Check = Callable[[SamplerTable], None]
"""Raises RecipeError for a sampler that the method cannot serve."""
CheckNetwork = Callable[[nn.Module], None]
"""Raises CalibrationError for a network (FP32) that the method cannot serve."""


@dataclass(frozen=True)
class Method:
    """One published method, or a combination.

    Attributes:
        source: authors, year, where.
        base: what it stands on; left out when it is added to another method.
        settings: of the recipe, where the recipe itself says nothing.
        fit: its phases in order; without any, ranges and weights stay as they were searched.
        blocks: changes to BlockOptions, for ``BLOCKS`` among the phases.
        constants: numbers of its functions that are no constants of their modules, such as arguments they were made with.
        check: of the sampler, before weights are read. check_network: before any other work.
        needs_timestep: what it does with the time embedding or other timesteps, in words after its name; empty: nothing.
    """

    name: str
    source: str = ""
    base: Method | None = None
    _: KW_ONLY
    settings: Settings = field(default_factory=dict)
    fit: tuple[Phase, ...] = ()
    blocks: Mapping[str, Any] = field(default_factory=dict)
    choose: Choose | None = None
    smooth: Smooth | None = None
    check: Check | None = None
    check_network: CheckNetwork | None = None
    finish: tuple[Finish, ...] = ()
    constants: Mapping[str, Any] = field(default_factory=dict)
    needs_timestep: str = ""

    def hyper_parameters(self) -> dict[str, Any]:
        """The numbers that the method's own functions work with: constants of their modules, and ``constants``."""
        functions = (self.choose, self.smooth, *self.finish)
        modules = dict.fromkeys(function.__module__ for function in functions if function is not None)
        return constants_of(*modules) | dict(self.constants)

    def whole(self) -> Method:
        """The method with its base worked in."""
        return self if self.base is None else replace(add(self.base.whole(), self), name=self.name)


def add(first: Method, second: Method) -> Method:
    """``first`` with what is ``second``'s own.

    Raises:
        RecipeError: both claim the same phase.
    """
    name = f"{first.name}+{second.name}"
    for phase in ("choose", "smooth"):
        if getattr(first, phase) is not None and getattr(second, phase) is not None:
            raise RecipeError(f"method {name!r}: both have their own {_PHASES[phase]}; name one of them")
    if first.fit and second.fit:
        raise RecipeError(
            f"method {name!r}: both fit weights; a fit is the first method's, what is added corrects or prepares"
        )
    fit = first.fit or second.fit
    if second.blocks and BLOCKS not in fit:
        raise RecipeError(
            f"method {name!r}: {second.name} changes how blocks are reconstructed, {first.name} reconstructs "
            "none; add it to qdiffusion or tfmq"
        )
    return Method(
        name,
        first.source,
        settings={
            section: {**first.settings.get(section, {}), **second.settings.get(section, {})}
            for section in {**first.settings, **second.settings}
        },
        fit=fit,
        blocks={**first.blocks, **second.blocks},
        choose=first.choose or second.choose,
        smooth=first.smooth or second.smooth,
        check=_both(first.check, second.check),
        check_network=_both(first.check_network, second.check_network),
        finish=first.finish + second.finish,
        constants={**first.constants, **second.constants},
        needs_timestep=first.needs_timestep or second.needs_timestep,
    )


_PHASES = {"choose": "calibration set", "smooth": "smoothing"}


def _both(first: Callable[[T], None] | None, second: Callable[[T], None] | None) -> Callable[[T], None] | None:
    if first is None or second is None:
        return first or second

    def check(given: T) -> None:
        first(given)
        second(given)

    return check
