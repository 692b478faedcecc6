"""What a phase of a fit is: work on a quantized network, and what it needs before, beside and to be repeated.

A method with a fit of its own defines a subclass in its file and names an instance in ``Method.fit``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.data.trajectories import Trajectories
from dq_toolchain.calibrate.network.activation_memory import ActivationMemory
from dq_toolchain.calibrate.network.insert import QuantizedNetwork
from dq_toolchain.calibrate.work.checkpoint import CheckpointFile
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.recipe.sections import Recipe
from dq_toolchain.toolchain.sampler.step_groups import StepGroups

WEIGHTS = ("ranges.observer", "network.fake_quant", "network.straight_through")
"""Modules whose constants decide how weights are quantized, in every phase."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a phase works on.

    Attributes:
        network: fitted in place.
        chosen: (N, M) bool, the method's calibration set of (step, sample) pairs; None is all of them.
        block_options: changes to ``BlockOptions``.
        checkpoint: of this phase.
    """

    recipe: Recipe
    network: QuantizedNetwork
    trajectories: Trajectories
    chosen: Tensor | None
    block_options: Mapping[str, Any]
    checkpoint: CheckpointFile
    reporter: Reporter


@dataclass(frozen=True)
class FitResult:
    """What a fit leaves beside the network: a record per stage, the growth of errors if it was measured, seconds."""

    stages: list[dict[str, Any]]
    growth: list[float] | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Memory of a phase at its most.

    Attributes:
        per_weight: float32 values for each weight of the network. floats: others, of weights of a part of it.
        activations: bytes on the device. host: bytes of records that stay on the host.
        of_one_sample: of the activations, where an iteration can run sample by sample; None: it cannot.
    """

    per_weight: float = 1.0
    floats: int = 0
    activations: int = 0
    of_one_sample: int | None = None
    host: int = 0

    @property
    def least(self) -> int:
        """Bytes of activations that cannot be done without."""
        return self.activations if self.of_one_sample is None else self.of_one_sample


class Phase(ABC):
    """One phase. An instance holds nothing: what it works on is handed to it.

    Attributes:
        name: in the artifact's record and in names of checkpoints; lower-case letters and underscores.
        sections: of the recipe that it reads whole, or SECTION.KEY of those of which it reads a key.
        alone: what it does that several processes cannot share; empty if they can.
    """

    name: ClassVar[str]
    sections: ClassVar[frozenset[str]] = frozenset()
    alone: ClassVar[str] = ""

    @abstractmethod
    def run(self, work: Work) -> FitResult:
        """Fit the network in place, from the checkpoint if there is one.

        Raises:
            CalibrationError: it does not converge or is not finite.
        """

    @abstractmethod
    def needs(self, context: Context, recipe: Recipe, one: ActivationMemory) -> Needs:
        """Memory, with activations of ``one`` sample."""

    @abstractmethod
    def hyper_parameters(
        self, recipe: Recipe, block_options: Mapping[str, Any], step_groups: Iterable[tuple[int, ...]]
    ) -> dict[str, Any]:
        """Everything that decides its result: settings of the recipe, and the constants of its modules."""

    def passes(self, context: Context, recipe: Recipe) -> float:
        """Its work, all processes together: FP32 calls of the network for one sample, without gradient, that take as long.

        The minutes said before the work starts follow from it; a phase that says nothing is not counted there.
        """
        return 0.0

    def before(self, recipe: Recipe) -> tuple[Phase, ...]:
        """Phases that this recipe needs to be done first."""
        return ()

    def is_idle(self, recipe: Recipe) -> bool:
        """Whether this recipe leaves it nothing to do; what has to be done before it is done nevertheless."""
        return False

    def shared_samples(self, recipe: Recipe, step_groups: StepGroups) -> Mapping[str, int]:
        """Stage -> samples that one iteration takes, of which several processes must have equal shares."""
        return {}


def phases_of(fit: Iterable[Phase], recipe: Recipe) -> tuple[Phase, ...]:
    """The phases of a fit in order, with those that the recipe needs before one of them, and without idle ones.

    Raises:
        RecipeError: what the recipe asks of a phase does not go together.
    """
    found: list[Phase] = []
    for phase in fit:
        own = () if phase.is_idle(recipe) else (phase,)
        found += [each for each in (*phase.before(recipe), *own) if each not in found]
    return tuple(found)
