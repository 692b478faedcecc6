"""``validate`` what a device reported, ``doctor`` a bundle before it goes there. Exit code 1: not good."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dq_toolchain.toolchain.cli.app import Json, Out, Target, app, console, print_json
from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.recipe_file import load_recipe


@app.command(epilog="Examples:  dq-toolchain validate | dq-toolchain validate report.json --html page.html --json | "
                    "dq-toolchain validate phone.json jetson.json --html page.html")
def validate(
    report: Annotated[list[Path] | None, typer.Argument(help="report.json, several to compare  "
                                                             "[default: OUT/TARGET/report.json]")] = None,
    target: Target = None, out: Out = None,
    bundle: Annotated[Path | None, typer.Option(help="bundle folder  [default: the one the report names]")] = None,
    html: Annotated[Path | None, typer.Option(help="also write one self-contained page")] = None,
    vae: Annotated[Path | None, typer.Option(help="pipeline (folder or hub id) whose autoencoder turns the page's "
                                                  "latents into pictures")] = None,
    json_: Json = False,
) -> None:
    """Judge device reports: fidelity to FP32 and conformance to the simulation. Exit code 1 if a verdict is bad."""
    from dq_toolchain.toolchain.comparison import to_json
    from dq_toolchain.toolchain.decoder import load_decoder
    from dq_toolchain.toolchain.page import write_page
    from dq_toolchain.toolchain.show import show_comparison, show_verdict
    from dq_toolchain.toolchain.verdict import validate as judge

    settings = load_recipe(None, {"run": {"out": out}, "export": {"target": target}})
    paths = report or [settings.run.out / settings.export.target / "report.json"]
    if bundle is not None and len(paths) > 1:
        raise RecipeError(f"--bundle is for one report, got {len(paths)}; each report names its own, or judge them one by one")
    if vae is not None and html is None:
        raise RecipeError("--vae is for the page, got no --html; add it, or leave --vae out")
    verdicts = [judge(path, bundle) for path in paths]
    if html is not None:
        write_page(html, verdicts, None if vae is None else load_decoder(vae))
    if json_:
        print_json(verdicts[0].to_json() if len(verdicts) == 1 else to_json(verdicts))
    elif len(verdicts) == 1:
        show_verdict(console, verdicts[0])
    else:
        show_comparison(console, verdicts)
    if not all(verdict.passed for verdict in verdicts):
        raise typer.Exit(1)


@app.command(epilog="Examples:  dq-toolchain doctor dq-out/coreml | dq-toolchain doctor --target tensorrt --json")
def doctor(
    bundle: Annotated[Path | None, typer.Argument(help="bundle folder  [default: OUT/TARGET]")] = None,
    target: Target = None, out: Out = None, json_: Json = False,
) -> None:
    """Check a bundle before it is copied to a device. Exit code 1 if something in it does not fit."""
    from dq_toolchain.backends.programs import program_checks
    from dq_toolchain.toolchain.doctor import examine
    from dq_toolchain.toolchain.show import show_checks

    settings = load_recipe(None, {"run": {"out": out}, "export": {"target": target}})
    checks = examine(bundle or settings.run.out / settings.export.target, program_checks)
    if json_:
        print_json({"passed": all(check.passed for check in checks), "checks": [check.to_json() for check in checks]})
    else:
        show_checks(console, checks)
    if not all(check.passed for check in checks):
        raise typer.Exit(1)
