"""``validate`` what a device reported, ``doctor`` a bundle before it goes there. Exit code 1: not good, 3: not decided."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dq_toolchain import backends
from dq_toolchain.toolchain.cli.app import Json, Out, Target, app, bundle_folder, console, print_json
from dq_toolchain.toolchain.errors import RecipeError

if TYPE_CHECKING:
    from dq_toolchain.toolchain.models.decoder import Decode

VALIDATE = """Judge device reports: fidelity to FP32 and conformance to the simulation.

Exit code 0: pass. 1: a verdict is bad. 3: none is bad, but one is not decided, and so many more seeds are needed; with fewer than
10 held-out seeds no verdict is pass."""


@app.command(
    help=VALIDATE,
    epilog="Examples:  dq-toolchain validate | dq-toolchain validate report.json --html page.html --json | "
    "dq-toolchain validate phone.json board.json --bundle dq-out/phone --bundle dq-out/board --html page.html",
)
def validate(
    report: Annotated[
        list[Path] | None, typer.Argument(help="report.json, several to compare  [default: OUT/TARGET/report.json]")
    ] = None,
    target: Target = None,
    out: Out = None,
    bundle: Annotated[
        list[Path] | None,
        typer.Option(
            help="bundle folder, may be given several times: each report is judged by the one that it was made with, and by no "
            "other  [default: the folder that the report names]"
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="also write one self-contained page")] = None,
    vae: Annotated[
        Path | None,
        typer.Option(help="pipeline (folder or hub id) whose autoencoder turns the page's latents into pictures"),
    ] = None,
    clip: Annotated[
        Path | None,
        typer.Option(
            help="folder of a CLIP model as transformers saves it: scores the pictures of a whole pipeline, which judge nothing"
        ),
    ] = None,
    json_: Json = False,
) -> None:
    from dq_toolchain.api.judgement import validate as judge
    from dq_toolchain.toolchain.checks import EXIT_CODES, outcome_of
    from dq_toolchain.toolchain.console.progress import Reporter
    from dq_toolchain.toolchain.render.show import show_comparison, show_verdict
    from dq_toolchain.toolchain.verdict.comparison import to_json

    paths = report or [bundle_folder(out, target) / "report.json"]
    if vae is not None and html is None:
        raise RecipeError("--vae is for the page, got no --html; add it, or leave --vae out")
    decode: Decode | None = None
    if vae is not None:  # what cannot be read is refused before anything else
        from dq_toolchain.toolchain.models.decoder import load_decoder

        decode = load_decoder(vae, Reporter().warn)
    seer = None
    if clip is not None:
        from dq_toolchain.toolchain.parts.clip_scores import ClipModel

        seer = ClipModel(clip, Reporter().warn)
    verdicts = [judge(path, bundle=bundle) for path in paths]
    if seer is not None:
        verdicts = [verdict.scored(seer) for verdict in verdicts]
    used = {verdict.match.folder for verdict in verdicts}
    for folder in bundle or []:
        if folder not in used:
            Reporter().warn(f"--bundle {folder} judged no report: none was made with it")
    if html is not None:
        from dq_toolchain.toolchain.render.page import write_page

        write_page(html, verdicts, decode)
    if json_:
        print_json(verdicts[0].to_json() if len(verdicts) == 1 else to_json(verdicts))
    elif len(verdicts) == 1:
        show_verdict(console, verdicts[0])
    else:
        show_comparison(console, verdicts)
    code = EXIT_CODES[outcome_of([verdict.outcome for verdict in verdicts])]
    if code:
        raise typer.Exit(code)


@app.command(
    epilog=f"Examples:  dq-toolchain doctor dq-out/{backends.DEFAULT} | "
    f"dq-toolchain doctor --target {backends.names()[0]} --json"
)
def doctor(
    bundle: Annotated[Path | None, typer.Argument(help="bundle folder  [default: OUT/TARGET]")] = None,
    target: Target = None,
    out: Out = None,
    json_: Json = False,
) -> None:
    """Check a bundle before it is copied to a device. Exit code 1 if something in it does not fit."""
    from dq_toolchain.backends.programs import program_checks
    from dq_toolchain.toolchain.render.show import show_checks
    from dq_toolchain.toolchain.verdict.doctor import examine

    checks = examine(bundle or bundle_folder(out, target), program_checks)
    if json_:
        print_json({"passed": all(check.passed for check in checks), "checks": [check.to_json() for check in checks]})
    else:
        show_checks(console, checks)
    if not all(check.passed for check in checks):
        raise typer.Exit(1)
