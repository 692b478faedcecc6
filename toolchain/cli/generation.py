"""``generate`` a picture of a prompt, and of another picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dq_toolchain import backends
from dq_toolchain.toolchain.cli.app import Json, Target, app, bundle_folder, console, print_json
from dq_toolchain.toolchain.console.progress import Reporter

EXAMPLES = (
    'dq-toolchain generate --prompt "a red house" --seed 7 --out house.png | '
    'dq-toolchain generate --prompt "a snowy house" --image house.png --strength 0.6 --out snow.png | '
    'dq-toolchain generate --source dq-out/calibration --prompt "a red house" --out simulated.png | '
    'dq-toolchain generate --source models/sd15 --prompt "a red house" --steps 20 --guidance 7.5 --out fp32.png'
)


@app.command(epilog=f"Examples:  {EXAMPLES}")
def generate(
    prompt: Annotated[str | None, typer.Option(help="what to draw")] = None,
    negative_prompt: Annotated[str, typer.Option(help="what guidance leads away from")] = "",
    label: Annotated[
        int | None, typer.Option(help="class, for a model that takes one in the place of a prompt")
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(
            help="PNG file to begin with in the place of noise, of the size that the model draws; a bundle needs `export "
            "--image-to-image`"
        ),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(help="above 0 and at most 1: the share of the steps that run after --image  [default: 0.8]"),
    ] = None,
    seed: Annotated[int, typer.Option(help="of the noise; the same as in diffusers with a generator on the CPU")] = 0,
    steps: Annotated[
        int | None,
        typer.Option(help="of those that the bundle holds; of a pipeline any  [default: the calibrated ones]"),
    ] = None,
    guidance: Annotated[float | None, typer.Option(help="likewise")] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            help="what draws: a bundle's folder (its programs, on this machine), a calibration's (the integer simulation), or a "
            f"pipeline's (diffusers in FP32)  [default: dq-out/{backends.DEFAULT}]"
        ),
    ] = None,
    target: Target = None,
    threads: Annotated[int | None, typer.Option(help="of the bundle's runtime  [default: its own choice]")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG file to write")] = Path("picture.png"),
    json_: Json = False,
) -> None:
    """Draw a picture of a prompt, by a bundle, by the integer simulation, or by the FP32 pipeline."""
    from dq_toolchain.api.generation import generate as draw
    from dq_toolchain.api.generation import kind_of
    from dq_toolchain.toolchain.disk.pictures import check_png, write_png

    check_png(out)
    folder = source or bundle_folder(None, target)
    reporter = Reporter()
    with reporter.bar("sampling") as progress:
        picture = draw(
            folder,
            prompt,
            negative_prompt=negative_prompt,
            label=label,
            image=image,
            strength=strength,
            seed=seed,
            steps=steps,
            guidance=guidance,
            threads=threads,
            on_note=reporter.warn,
            progress=progress,
        )
    write_png(out, picture.pixels)
    if json_:
        print_json({"picture": str(out), "source": str(folder), "by": kind_of(folder), "seed": seed})
    else:
        console.print(
            f"{out}: {picture.pixels.shape[2]} x {picture.pixels.shape[1]} pixels, by the {kind_of(folder)} in {folder}"
        )
