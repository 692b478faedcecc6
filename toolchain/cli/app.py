"""The command itself, the options that several commands share, and where results go."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from dq_toolchain import __version__, backends
from dq_toolchain.toolchain.cli.names import complete_targets
from dq_toolchain.toolchain.console.terminal import Terminal
from dq_toolchain.toolchain.recipe.loading import load_recipe

app = typer.Typer(
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Diffusion models on phones and embedded accelerators, in integers, with proof that the pictures stay right.",
    epilog="Start with: dq-toolchain calibrate && dq-toolchain export && dq-toolchain run && dq-toolchain validate",
)
console = Terminal() if sys.stdout.isatty() else Terminal(width=200)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"dq-toolchain {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    """Options of the command itself."""


RecipeFile = Annotated[Path | None, typer.Option("--recipe", "-r", help="TOML file; flags override it")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="output folder  [default: dq-out]")]
ModelName = Annotated[
    str | None, typer.Option(help="diffusers folder or hub id owner/name  [default: embedded digits]")
]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object on stdout")]
UnetOnly = Annotated[
    bool | None,
    typer.Option(
        "--unet-only",
        help="the network alone, without the pipeline's text encoders and decoder  [default: all of it]",
    ),
]
ImageToImage = Annotated[
    bool | None,
    typer.Option(
        "--image-to-image",
        help="the encoder of pictures too, so that `generate --image` can begin with a picture  [default: without]",
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        "--target",
        "-t",
        help=f"{' | '.join(backends.names())}, see `dq-toolchain targets`  [default: {backends.DEFAULT}]",
        autocompletion=complete_targets,
    ),
]


def bundle_folder(out: Path | None, target: str | None) -> Path:
    """Where the bundle of a target lies: OUT/TARGET. Raises RecipeError: there cannot be such a folder."""
    settings = load_recipe(None, {"run": {"out": out}, "export": {"target": target}})
    return settings.run.out / (settings.export.target or backends.DEFAULT)


def print_json(data: Any) -> None:
    """One JSON value on stdout, where nothing else goes then."""
    print(json.dumps(data, indent=1))
