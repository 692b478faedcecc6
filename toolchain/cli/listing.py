"""``inspect`` a folder, list the ``targets``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dq_toolchain import backends
from dq_toolchain.toolchain.cli.app import Json, Out, app, console, print_json
from dq_toolchain.toolchain.recipe.loading import load_recipe


@app.command(
    epilog=f"Examples:  dq-toolchain inspect | dq-toolchain inspect dq-out/{backends.DEFAULT} --json | "
    "dq-toolchain inspect --sensitivity"
)
def inspect(
    path: Annotated[Path | None, typer.Argument(help="artifact or bundle folder  [default: OUT/calibration]")] = None,
    out: Out = None,
    sensitivity: Annotated[
        bool,
        typer.Option(
            "--sensitivity",
            help="instead: layers, those first that 4 bits would harm most in the finished image; of a calibration with --budget",
        ),
    ] = False,
    json_: Json = False,
) -> None:
    """Print every site with bits, scheme and range, and what stays in float and why."""
    from dq_toolchain.toolchain.render.sensitivity import sensitivity_of, show_sensitivity
    from dq_toolchain.toolchain.render.summary import inspect_folder, show_inspection

    folder = path or load_recipe(None, {"run": {"out": out}}).run.out / "calibration"
    if sensitivity:
        rows = sensitivity_of(folder)
        print_json(rows) if json_ else show_sensitivity(console, rows)
        return
    inspection = inspect_folder(folder)
    if json_:
        print_json(inspection)
    else:
        show_inspection(console, inspection)


@app.command(epilog="Examples:  dq-toolchain targets | dq-toolchain targets --json")
def targets(json_: Json = False) -> None:
    """List the targets: what they need, what they hold, where they were verified."""
    from dataclasses import asdict

    from dq_toolchain.toolchain.render.summary import show_targets

    found = [asdict(backends.describe(name)) | {"default": name == backends.DEFAULT} for name in backends.names()]
    if json_:
        print_json(found)
    else:
        show_targets(console, found)
