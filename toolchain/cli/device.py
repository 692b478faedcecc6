"""``export`` a bundle for a target, ``run`` it on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dq_toolchain import backends
from dq_toolchain.toolchain.cli.app import (
    ImageToImage,
    Json,
    Out,
    RecipeFile,
    Target,
    UnetOnly,
    app,
    bundle_folder,
    console,
    print_json,
)
from dq_toolchain.toolchain.cli.options import examples, target_options, with_options
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.console.terminal import line, plain
from dq_toolchain.toolchain.recipe.loading import load_recipe

SECTIONS = backends.sections()


def export(
    target: Target = None,
    recipe: RecipeFile = None,
    out: Out = None,
    calibration: Annotated[Path | None, typer.Option(help="artifact folder  [default: OUT/calibration]")] = None,
    steps: Annotated[
        str | None,
        typer.Option(
            help="comma-separated, such as 8,50: step counts that `run` and a device can choose beside the calibrated one, of "
            "those that `calibrate --more-steps` was given  [default: none]"
        ),
    ] = None,
    guidance: Annotated[
        str | None, typer.Option(help="the same for guidance scales and `calibrate --more-guidance`  [default: none]")
    ] = None,
    unet_only: UnetOnly = None,
    image_to_image: ImageToImage = None,
    json_: Json = False,
    **given: Any,
) -> None:
    """Lower a calibration artifact to a target's file, audit it, and write the bundle OUT/TARGET."""
    settings = load_recipe(
        recipe,
        {
            "run": {"out": out},
            "export": {
                "target": target,
                "steps": steps,
                "guidance": guidance,
                "unet_only": unet_only,
                "image_to_image": image_to_image,
            },
        },
        sections=SECTIONS,
        target_flags=given,
        default_target=backends.DEFAULT,
    )
    from dq_toolchain.api.device import lowered
    from dq_toolchain.toolchain.render.summary import bundle_summary, show_bundle

    chosen = settings.export.target or backends.DEFAULT
    source = calibration or settings.run.out / "calibration"
    folder, own = settings.run.out / chosen, getattr(settings, chosen, None)
    bundle = lowered(None, source, folder, chosen, own, Reporter(), settings.export)
    summary = bundle_summary(bundle.folder, bundle.description)
    if json_:
        print_json(summary)
    else:
        show_bundle(console, summary)


app.command("export", epilog=f"Examples:  {examples(SECTIONS, 'export')}")(
    with_options(export, target_options(SECTIONS))
)


@app.command(epilog=f"Examples:  dq-toolchain run | dq-toolchain run --target {backends.DEFAULT} --seeds 4 --threads 1")
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
    steps: Annotated[
        int | None, typer.Option(help="of the step counts that the bundle holds  [default: the calibrated one]")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="of the guidance scales that it holds  [default: the calibrated one]")
    ] = None,
    emulator: Annotated[
        bool,
        typer.Option(
            "--emulator",
            help="execute on the vendor's emulator of the device, where the target has one: it is slow, and shows what the device "
            "computes, but nothing of its speed  [default: the target's runtime on this machine]",
        ),
    ] = False,
    json_: Json = False,
) -> None:
    """Execute a bundle on this machine through the whole sampler and write the device report."""
    from dq_toolchain.api.device import executed

    folder = bundle or bundle_folder(out, target)
    place = report or (folder.parent if bundle is None else bundle)
    found = executed(
        folder, report or folder, seeds, threads, Reporter(), place, steps=steps, guidance=guidance, emulator=emulator
    )
    path = found.path
    if json_:
        print_json({**found.data, "report": str(path)})
    else:
        console.print(
            line("device report: ", plain(path), "\nnext: dq-toolchain validate ", plain(path)), soft_wrap=True
        )
