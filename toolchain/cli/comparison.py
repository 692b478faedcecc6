"""``compare`` methods on one model."""

from __future__ import annotations

from typing import Annotated

import typer

from dq_toolchain import backends
from dq_toolchain.toolchain.cli.app import Json, ModelName, Out, RecipeFile, app, console, print_json
from dq_toolchain.toolchain.cli.before import check_recipe
from dq_toolchain.toolchain.cli.calibration import PrecisionName
from dq_toolchain.toolchain.cli.names import complete_method_list, method_names
from dq_toolchain.toolchain.recipe.loading import load_recipe


@app.command(
    epilog="Examples:  dq-toolchain compare --methods minmax,mse,accuquant --bits W8A8,W4A8 | "
    "dq-toolchain compare --model ./my-unet --steps 20,50 --seeds 3 --recipe dq.toml --out study | "
    "dq-toolchain compare --model ./my-unet --out /shared/study --on ray"
)
def compare(
    recipe: RecipeFile = None,
    model: ModelName = None,
    out: Out = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="comma-separated; combinations joined by '+'; single-step is accuquant one step at a time with as many network "
            "passes, to see what several steps at once are worth  [default: all]",
            autocompletion=complete_method_list,
        ),
    ] = None,
    bits: Annotated[
        str | None, typer.Option(help="comma-separated, such as W8A8,W4A8  [default: the recipe's]")
    ] = None,
    steps: Annotated[str | None, typer.Option(help="comma-separated, such as 20,50  [default: the recipe's]")] = None,
    precision: PrecisionName = None,
    seeds: Annotated[int, typer.Option(help="calibration seeds, for the spread  [default: 1]", show_default=False)] = 1,
    held_out: Annotated[int, typer.Option(help="held-out seeds to judge on  [default: 256]", show_default=False)] = 256,
    on: Annotated[
        str,
        typer.Option(
            help="here | ray: the machines of a Ray cluster, which all see the model and OUT at the same place  [default: here]",
            show_default=False,
        ),
    ] = "here",
    json_: Json = False,
) -> None:
    """Calibrate one model with several methods and compare them: OUT/compare. Continues; exit code 1 if a cell failed."""
    from dq_toolchain.calibrate.compare.grid import parse_bits, parse_methods, parse_place, parse_steps

    parse_place(on)
    if methods is not None:
        parse_methods(methods, method_names())
    if bits is not None:
        parse_bits(bits)
    if steps is not None:
        parse_steps(steps)
    flags = {"model": {"path": model}, "run": {"precision": precision}}
    sections = backends.sections()
    check_recipe(load_recipe(recipe, flags, sections=sections, warn=lambda line: None))  # what it says comes below
    from dq_toolchain.calibrate.compare.command import compare as run_compare
    from dq_toolchain.calibrate.compare.plan import Request
    from dq_toolchain.calibrate.compare.progress import GridReporter
    from dq_toolchain.calibrate.compare.show import show_comparison

    request = Request(
        recipe=recipe,
        model=model,
        out=out,
        methods=methods,
        bits=bits,
        steps=steps,
        seeds=seeds,
        held_out=held_out,
        target_sections=sections,
        precision=precision,
    )
    comparison = run_compare(request, GridReporter(), on)
    if json_:
        print_json(comparison.to_json())
    else:
        show_comparison(console, comparison)
    if comparison.with_state("failed"):
        raise typer.Exit(1)
