"""From what the user asked for to a grid that can be worked on: every recipe checked, every cell identified.

Everything that can be refused is refused here, before any work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dq_toolchain.calibrate.compare.grid import Cell, expand, parse_bits, parse_methods, parse_steps, sampler_name
from dq_toolchain.calibrate.compare.held_out import PLAIN
from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.data.samples import calibration_seeds, held_out_seeds
from dq_toolchain.calibrate.methods import effective, names, resolve
from dq_toolchain.calibrate.prepare.identity import hyper_parameters, versions
from dq_toolchain.calibrate.prepare.settings import deciding
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.calibrate.work.checkpoint import fingerprint
from dq_toolchain.toolchain.disk.digest import digest_of
from dq_toolchain.toolchain.errors import ModelError, RecipeError
from dq_toolchain.toolchain.models.architectures import latent_shape
from dq_toolchain.toolchain.models.decoder import find_decoder
from dq_toolchain.toolchain.models.loading import Model
from dq_toolchain.toolchain.recipe.loading import load_recipe
from dq_toolchain.toolchain.recipe.sections import Recipe, RunSection, TargetSection
from dq_toolchain.toolchain.sampler.scheduler import sampler_table
from dq_toolchain.toolchain.sampler.step_groups import even_step_groups

Device = Literal["cpu", "cuda"]
MOST_SEED = next(bound.le for bound in RunSection.model_fields["seed"].metadata if hasattr(bound, "le"))


@dataclass(frozen=True)
class Request:
    """The command's arguments; None takes what the recipe says, for methods all of them.

    Attributes:
        seeds: number of calibration seeds, counted up from the recipe's. held_out: number of held-out seeds.
        target_sections: which the recipe may have, for those who export what comes out; they decide nothing here.
        gpus: of the machines that do the cells, None where this machine does them.
    """

    recipe: Path | None = None
    model: str | Path | None = None
    out: Path | None = None
    methods: str | None = None
    bits: str | None = None
    steps: str | None = None
    seeds: int = 1
    held_out: int = 256
    target_sections: Mapping[str, type[TargetSection]] | None = None
    gpus: int | None = None
    precision: str | None = None


@dataclass(frozen=True)
class Grid:
    """The cells of a comparison in the order of work.

    Attributes:
        folder: ``<out>/compare``. model: the model's folder; model_id: its name.
        recipes, fingerprints: of every cell; equal fingerprints give equal results. A setting that a method does not read
            does not change its cells' fingerprints.
        provenance: what ``cell.json`` says about where a result comes from.
        no_pictures: why the model's decoder cannot be used, None if it can or the model has none.
    """

    folder: Path
    model: Path
    model_id: str
    held_out: int
    cells: tuple[Cell, ...]
    recipes: Mapping[Cell, Recipe]
    fingerprints: Mapping[Cell, str]
    provenance: Mapping[Cell, Mapping[str, Any]]
    no_pictures: str | None = None

    def cell_folder(self, cell: Cell) -> Path:
        return self.folder / "cells" / cell.name

    def work(self, cell: Cell) -> Path:
        """Checkpoints of the cells that share FP32 rollouts with this one."""
        return self.folder / "work" / f"{cell.sampler}{cell.steps}-s{cell.seed}"

    def lock(self, cell: Cell) -> Path:
        return self.folder / "cells" / f"{cell.name}.lock"


def plan(request: Request) -> Grid:
    """The grid of a request.

    Raises:
        ToolchainError: an argument, the recipe, the model or its sampler is refused.
    """
    base = load_recipe(
        request.recipe,
        {"model": {"path": request.model}, "run": {"out": request.out, "precision": request.precision}},
        sections=request.target_sections,
    )
    base, elsewhere = _for_machines(base, request.gpus)
    quantize, first_seed = base.quantize, base.run.seed
    methods = names() if request.methods is None else parse_methods(request.methods, names())
    for method in methods:
        resolve(method)  # refuses what does not go together
    bits = [(quantize.weight_bits, quantize.activation_bits)] if request.bits is None else parse_bits(request.bits)
    steps = [base.sampler.steps] if request.steps is None else parse_steps(request.steps)
    _check_counts(request, first_seed)
    first = _recipe(base, Cell("", steps[0], *bits[0], methods[0], first_seed))
    if elsewhere == "cuda":  # this machine only plans, and may have none
        first = _with_run(first, device="cpu", precision="exact")
    context = setup(first, PLAIN)
    network, scheduler = context.model.config, context.model.scheduler_config
    tables = {number: sampler_table(network, scheduler, number, eta=base.sampler.eta) for number in steps}
    for table in tables.values():
        even_step_groups(table.calls, quantize.step_groups)
    cells = expand(
        sampler_name(context.table.scheduler), steps, bits, methods, range(first_seed, first_seed + request.seeds)
    )
    recipes = {cell: _recipe(base, cell) for cell in cells}
    provenance = {cell: _provenance(recipes[cell], cell, context.model, tables[cell.steps].calls) for cell in cells}
    decides = _decides(context, request.held_out, elsewhere or context.device.type)
    context.close()
    return Grid(
        base.run.out / "compare",
        context.model.folder,
        context.model.id,
        request.held_out,
        cells,
        recipes,
        {cell: fingerprint(provenance[cell], tables[cell.steps].to_json(), decides) for cell in cells},
        provenance,
        _no_pictures(context.model),
    )


def _for_machines(recipe: Recipe, gpus: int | None) -> tuple[Recipe, Device | None]:
    """The recipe with the device that other machines do its cells on, and that device; None where this machine does them.

    Raises:
        RecipeError: it asks for a GPU, which they do not have.
    """
    if gpus is None:
        return recipe, None
    if recipe.run.device == "cuda" and not gpus:
        raise RecipeError(
            "[run] device: got cuda, but no machine of the cluster offers a GPU; start its workers where torch sees one "
            "(`ray start` counts GPUs itself, or --num-gpus), or set cpu"
        )
    device: Device = "cuda" if gpus and recipe.run.device != "cpu" else "cpu"
    return _with_run(recipe, device=device), device


def _with_run(recipe: Recipe, **values: str) -> Recipe:
    return recipe.model_copy(update={"run": recipe.run.model_copy(update=values)})


def _no_pictures(model: Model) -> str | None:
    """Why the decoder that comes with the model cannot be used; it is read once for that, before hours of work."""
    try:
        find_decoder(model.folder, latent_shape(model.config)[0])
    except ModelError as error:
        return " ".join(str(error).split())
    return None


def _recipe(base: Recipe, cell: Cell) -> Recipe:
    """The recipe that ``dq-toolchain calibrate`` would be given for the cell: its values count as set by the user.

    What makes a method what it is stays: a recipe for all must not turn minmax into mse. Made from the recipe already
    read, so that a recipe that can be read only once, such as a pipe, serves all cells.
    """
    own: dict[str, dict[str, Any]] = {
        "run": {"seed": cell.seed},
        "sampler": {"steps": cell.steps},
        "quantize": {"weight_bits": cell.weight_bits, "activation_bits": cell.activation_bits},
        "calibrate": {"method": cell.method},
    }
    recipe = base.model_copy(
        update={name: getattr(base, name).model_copy(update=values) for name, values in own.items()}
    )
    return effective(recipe, as_published=True)


def _provenance(recipe: Recipe, cell: Cell, model: Model, calls: int) -> dict[str, Any]:
    settings = deciding(recipe, resolve(cell.method))
    for section, name in (("conditioning", "file"), ("conditioning", "prompts"), ("run", "device")):
        del settings[section][name]  # by content and by what "auto" came to: _decides
    groups = even_step_groups(calls, recipe.quantize.step_groups)
    return {
        "recipe": settings,
        "method": hyper_parameters(recipe, resolve(cell.method), groups),
        "versions": versions(),
        "model": {"id": model.id, "weight_hash": model.weight_hash},
    }


def _decides(context: Context, held_out: int, device: str) -> list[Any]:
    """What decides the results beside the cell's own settings: what files hold, not where they lie."""
    bank = {f"cond.{name}": value for name, value in context.bank.cond.items()}
    bank |= {f"uncond.{name}": value for name, value in context.bank.uncond.items()}
    seeds = [held_out, held_out_seeds(1), calibration_seeds(0, 1)]  # which samples they stand for
    return [context.model.config, context.model.scheduler_config, seeds, digest_of(bank), device]


def _check_counts(request: Request, first_seed: int) -> None:
    if not 1 <= request.seeds <= MOST_SEED + 1 - first_seed:
        raise RecipeError(
            f"--seeds: got {request.seeds}, allowed are 1-{MOST_SEED + 1 - first_seed} calibration seeds from {first_seed} on"
        )
    if not 2 <= request.held_out <= 100_000:
        raise RecipeError(f"--held-out: got {request.held_out}, allowed are 2-100000 held-out seeds")
