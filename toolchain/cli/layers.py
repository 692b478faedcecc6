"""``analyze`` which layers make a calibration's error."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dq_toolchain.toolchain.cli.app import Json, Out, app, console, print_json
from dq_toolchain.toolchain.recipe.loading import load_recipe


@app.command(
    epilog="Examples:  dq-toolchain analyze | dq-toolchain analyze --runs 8 --json | "
    "dq-toolchain analyze dq-out/calibration --model ./my-pipeline"
)
def analyze(
    path: Annotated[Path | None, typer.Argument(help="artifact folder  [default: OUT/calibration]")] = None,
    out: Out = None,
    model: Annotated[
        Path | None, typer.Option(help="where the FP32 model lies now  [default: where it was calibrated from]")
    ] = None,
    runs: Annotated[
        int,
        typer.Option(
            help="held-out samples, each run once through FP32 and back; a share is known to sqrt(2 / runs) of it  [default: 32]",
            show_default=False,
        ),
    ] = 32,
    device: Annotated[str | None, typer.Option(help="auto | cpu | cuda  [default: the calibration's]")] = None,
    json_: Json = False,
) -> None:
    """Print which layers make the error of the finished image, and which to keep in float. Continues a killed run."""
    from dq_toolchain.toolchain.render.summary import inspect_folder

    folder = path or load_recipe(None, {"run": {"out": out}}).run.out / "calibration"
    inspect_folder(folder)  # what is missing or damaged is told at once
    from dq_toolchain.calibrate.bits.analysis import analyze as measure
    from dq_toolchain.toolchain.console.progress import Reporter
    from dq_toolchain.toolchain.render.analysis import show_analysis

    found = measure(folder, Reporter(), model=model, runs=runs, device=device).to_json()
    if json_:
        print_json(found)
    else:
        show_analysis(console, found)
