"""Effort and bits decide how a network is calibrated: one table, and the recipe with its values filled in.

What the user, the recipe file or the model's own file sets stays; then a method's own settings; then this table. A section's own
defaults are the table's row for 8-bit weights and ``standard``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from dq_toolchain.toolchain.recipe.sections import Effort, Recipe

Width = Literal["wide", "narrow"]
NARROW = 6
"""Bits of weights up to which a fit pays (docs/RESULTS.md, "Effort"); 7 bits were not measured."""
NARROW_ACTIVATIONS = 5
"""The same of activations; measured are 4 bits, with which it pays, and 6, with which it does not."""
LEARNING = ("warmup", "iterations")
"""Of [calibrate], the iterations that learn rounding."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """One row: samples and iterations of the fit over steps, and of block reconstruction.

    No row has stages of several steps: at equal passes they gained nothing over single steps. Of the wide rows only ``best`` has a
    fit: behind rounding in closed form it gained next to nothing (docs/METHOD.md, "The stages").

    Attributes:
        samples, batch, warmup, steps, scale_lr, rounding_lr: see [calibrate].
        rows, iterations, activation_iterations: see [blocks].
    """

    samples: int
    batch: int
    warmup: int
    steps: Literal["uniform", "growth"]
    scale_lr: float
    rounding_lr: float
    rows: int
    iterations: int
    activation_iterations: int

    def sections(self) -> dict[str, dict[str, Any]]:
        """The row as settings of the recipe, section -> key -> value."""
        values = asdict(self)
        blocks = {name: values.pop(name) for name in ("rows", "iterations", "activation_iterations")}
        return {"calibrate": values, "blocks": blocks}


def _wide(samples: int, warmup: int, blocks: tuple[int, int, int]) -> Budget:
    return Budget(
        samples=samples, batch=16, warmup=warmup, steps="uniform",
        scale_lr=1e-3, rounding_lr=2e-3, rows=blocks[0], iterations=blocks[1], activation_iterations=blocks[2],
    )  # fmt: skip


def _narrow(samples: int, warmup: int, blocks: tuple[int, int, int]) -> Budget:
    return Budget(
        samples=samples, batch=4, warmup=warmup, steps="growth",
        scale_lr=2e-3, rounding_lr=3e-3, rows=blocks[0], iterations=blocks[1], activation_iterations=blocks[2],
    )  # fmt: skip


TABLE: Mapping[Width, Mapping[Effort, Budget]] = {
    "wide": {
        "quick": _wide(32, 0, (64, 60, 20)),
        "standard": _wide(64, 0, (128, 200, 50)),
        "best": _wide(512, 1200, (512, 400, 100)),
    },
    "narrow": {
        "quick": _narrow(128, 700, (256, 125, 30)),
        "standard": _narrow(512, 3800, (512, 250, 60)),
        "best": _narrow(1024, 7600, (1024, 500, 120)),
    },
}
"""By the width of the weights and the effort. ``benchmarks.effort`` measures what the rows cost and give."""


def row_of(recipe: Recipe) -> Budget:
    """The table's row for a recipe. A budget gives some layers 4 bits, whatever ``weight_bits`` is."""
    bits = recipe.quantize
    narrow = bits.weight_bits <= NARROW or bits.activation_bits <= NARROW_ACTIVATIONS or bits.budget is not None
    return TABLE["narrow" if narrow else "wide"][recipe.calibrate.effort]


def effective(recipe: Recipe) -> Recipe:
    """The recipe with the table's value of every setting that nobody set.

    Pure. Filled-in settings do not count as set: applied twice it changes nothing more, and ``chosen`` still names them.

    Args:
        recipe: with its method's settings, if it has any (``calibrate.methods.effective`` does both).
    """
    changed = {}
    for section, values in chosen(recipe).items():
        own = getattr(recipe, section)
        changed[section] = type(own).model_construct(own.model_fields_set, **{**dict(own), **values})
    return recipe.model_copy(update=changed)


def _sections(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """The row of a recipe, and rounding: it is learned only where iterations do so, and where there is memory for all of it."""
    found = row_of(recipe).sections()
    values, own = found["calibrate"], recipe.calibrate
    iterations = sum(getattr(own, key) if key in own.model_fields_set else values.get(key, 0) for key in LEARNING)
    values["rounding"] = "closed-form+learned" if iterations and not recipe.run.offload else "closed-form"
    return found


def chosen(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """What the table decides for this recipe: section -> key -> value, of the settings that nobody set."""
    return {
        section: {key: value for key, value in values.items() if key not in getattr(recipe, section).model_fields_set}
        for section, values in _sections(recipe).items()
    }


def overruled(recipe: Recipe) -> list[str]:
    """Settings that differ from what the asked effort would take, as lines of TOML; none unless an effort was asked for."""
    if "effort" not in recipe.calibrate.model_fields_set:
        return []
    found = []
    for section, values in _sections(recipe).items():
        own = getattr(recipe, section)
        found += [
            f"[{section}] {key} = {getattr(own, key)} ({recipe.calibrate.effort} takes {value})"
            for key, value in values.items()
            if key in own.model_fields_set and getattr(own, key) != value
        ]
    return found
