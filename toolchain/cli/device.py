"""``export`` a bundle for a target, ``run`` it on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dq_toolchain.toolchain.cli.app import Json, Out, RecipeFile, Target, app, console, print_json
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.console.terminal import line, plain
from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.recipe.loading import load_recipe


def _check_flags_of(target: str, sections: dict[str, dict[str, Any]]) -> None:
    """Raise RecipeError for a flag that only other targets understand."""
    given = [name for flags in sections.values() for name, value in flags.items() if value is not None]
    for name in given:
        owners = [section for section, flags in sections.items() if name in flags]
        if target not in owners:
            raise RecipeError(
                f"--{name.replace('_', '-')} is for target {' or '.join(map(repr, owners))}, got target {target!r}; "
                "leave it out"
            )


@app.command(
    epilog="Examples:  dq-toolchain export | dq-toolchain export --target executorch --form static | "
    "dq-toolchain export --target coreml --runtime-scales | dq-toolchain export --target tensorrt --jetpack 7"
)
def export(
    target: Target = None,
    recipe: RecipeFile = None,
    out: Out = None,
    calibration: Annotated[Path | None, typer.Option(help="artifact folder  [default: OUT/calibration]")] = None,
    form: Annotated[str | None, typer.Option(help="executorch: sentinel | static  [default: sentinel]")] = None,
    ios: Annotated[int | None, typer.Option(help="coreml: oldest iOS, 17 | 18 | 26  [default: 18]")] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="between integer layers, fp16 | fp32  [default: coreml fp16; tensorrt fp32, with --jetpack 7 fp16]"
        ),
    ] = None,
    runtime_scales: Annotated[
        bool | None,
        typer.Option("--runtime-scales", help="coreml: one function, ranges as input; all that iOS 17 takes"),
    ] = None,
    lut: Annotated[bool | None, typer.Option("--lut", help="coreml: 4-bit weights as int8 tables")] = None,
    layout: Annotated[str | None, typer.Option(help="coreml: plain | neural-engine  [default: plain]")] = None,
    quantize_outputs: Annotated[
        bool | None, typer.Option("--quantize-outputs", help="coreml: integers behind every layer too")
    ] = None,
    chunks: Annotated[
        int | None, typer.Option(help="coreml: packages that the network is cut into, 1 | 2  [default: 1]")
    ] = None,
    mode: Annotated[
        str | None, typer.Option(help="tensorrt: static | ratio (one engine, ranges as input)  [default: static]")
    ] = None,
    jetpack: Annotated[
        int | None, typer.Option(help="tensorrt: oldest JetPack that builds the engines, 6 | 7  [default: 6]")
    ] = None,
    check_build: Annotated[
        bool | None, typer.Option("--check-build", help="tensorrt: compile with NVIDIA's compiler, on the CPU")
    ] = None,
    json_: Json = False,
) -> None:
    """Lower a calibration artifact to a target's file, audit it, and write the bundle OUT/TARGET."""
    sections: dict[str, dict[str, Any]] = {
        "executorch": {"form": form},
        "coreml": {
            "ios": ios,
            "precision": precision,
            "runtime_scales": runtime_scales,
            "lut": lut,
            "layout": layout,
            "quantize_outputs": quantize_outputs,
            "chunks": chunks,
        },
        "tensorrt": {"mode": mode, "jetpack": jetpack, "precision": precision, "check_build": check_build},
    }
    settings = load_recipe(recipe, {"run": {"out": out}, "export": {"target": target}, **sections})
    _check_flags_of(settings.export.target, sections)
    from dq_toolchain.api.device import lowered
    from dq_toolchain.toolchain.render.summary import bundle_summary, show_bundle

    source = calibration or settings.run.out / "calibration"
    bundle = lowered(None, source, settings.run.out / settings.export.target, settings, Reporter())
    summary = bundle_summary(bundle.folder, bundle.description)
    if json_:
        print_json(summary)
    else:
        show_bundle(console, summary)


@app.command(epilog="Examples:  dq-toolchain run | dq-toolchain run --target executorch --seeds 4 --threads 1")
def run(
    target: Target = None,
    out: Out = None,
    bundle: Annotated[Path | None, typer.Option(help="bundle folder  [default: OUT/TARGET]")] = None,
    report: Annotated[Path | None, typer.Option(help="folder for the device report  [default: the bundle]")] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="held-out seeds to run; with fewer than 10 validate never says pass, at best 'not decided'  [default: all]",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="threads of the runtime  [default: its own choice]")
    ] = None,
    json_: Json = False,
) -> None:
    """Execute a bundle on this machine through the whole sampler and write the device report."""
    from dq_toolchain.api.device import executed

    settings = load_recipe(None, {"run": {"out": out}, "export": {"target": target}})
    folder = bundle or settings.run.out / settings.export.target
    place = report or (settings.run.out if bundle is None else bundle)
    found = executed(folder, report or folder, seeds, threads, Reporter(), place)
    path = found.path
    if json_:
        print_json({**found.data, "report": str(path)})
    else:
        console.print(
            line("device report: ", plain(path), "\nnext: dq-toolchain validate ", plain(path)), soft_wrap=True
        )
