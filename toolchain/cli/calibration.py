"""``calibrate`` one model: its options, and the recipe that they make."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from dq_toolchain import backends
from dq_toolchain.toolchain.cli.app import Json, ModelName, Out, RecipeFile, app, console, print_json
from dq_toolchain.toolchain.cli.before import check_recipe
from dq_toolchain.toolchain.cli.names import complete_methods, complete_targets
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.recipe.loading import load_recipe
from dq_toolchain.toolchain.recipe.sections import Recipe

PLACES = {
    "model": ("model", "path"),
    "variant": ("model", "variant"),
    "lora": ("model", "lora"),
    "lora_scale": ("model", "lora_scale"),
    "scheduler": ("model", "scheduler"),
    "vae": ("model", "vae"),
    "out": ("run", "out"),
    "target": ("export", "target"),
    "seed": ("run", "seed"),
    "device": ("run", "device"),
    "precision": ("run", "precision"),
    "offload": ("run", "offload"),
    "steps": ("sampler", "steps"),
    "guidance": ("sampler", "guidance"),
    "no_clip": ("sampler", "clip"),
    "conditioning": ("conditioning", "file"),
    "prompts": ("conditioning", "prompts"),
    "negative_prompt": ("conditioning", "negative_prompt"),
    "weight_bits": ("quantize", "weight_bits"),
    "activation_bits": ("quantize", "activation_bits"),
    "budget": ("quantize", "budget"),
    "scheme": ("quantize", "scheme"),
    "step_groups": ("quantize", "step_groups"),
    "outputs": ("quantize", "outputs"),
    "step_vectors": ("quantize", "step_vectors"),
    "keep_float": ("quantize", "keep_float"),
    "method": ("calibrate", "method"),
    "effort": ("calibrate", "effort"),
    "samples": ("calibrate", "samples"),
    "ranges": ("calibrate", "ranges"),
    "rounding": ("calibrate", "rounding"),
    "warmup": ("calibrate", "warmup"),
    "iterations": ("calibrate", "iterations"),
    "settling": ("calibrate", "settling"),
    "horizon": ("calibrate", "horizon"),
    "gradient": ("calibrate", "gradient"),
    "more_steps": ("reference", "more_steps"),
    "more_guidance": ("reference", "more_guidance"),
}
"""Option of ``calibrate`` -> section and key of the recipe."""
PrecisionName = Annotated[
    str | None,
    typer.Option(
        help="exact | tf32 | bf16: of FP32 rollouts, ranges and validation; the fit, the integer simulation and held-out "
        "samples are always exact. Calibrations in tf32 and bf16 had the verdict of exact ones, and mean PSNR within 0.7 dB "
        "of theirs, no more than chance gives (embedded model, quick, 8 and 4 bits, 64 held-out seeds, on a CPU)  "
        "[default: exact]"
    ),
]


def calibration_recipe(
    given: Mapping[str, Any], more: Mapping[str, Mapping[str, Any]] | None = None, **target: Any
) -> Recipe:
    """The recipe that options of ``calibrate`` make, with the file that ``recipe`` names among them.

    Args:
        more: flags of other sections. target: see ``load_recipe``.
    Raises:
        RecipeError: one line with every mistake and its place.
    """
    values = {**given, "no_clip": False if given["no_clip"] else None, "keep_float": given["keep_float"] or None}
    flags: dict[str, dict[str, Any]] = {section: dict(keys) for section, keys in (more or {}).items()}
    for option, (section, key) in PLACES.items():
        flags.setdefault(section, {})[key] = values[option]
    return load_recipe(given["recipe"], flags, sections=backends.sections(), **target)


@app.command(
    epilog="Examples:  dq-toolchain calibrate | dq-toolchain calibrate --weight-bits 4 --steps 20 --out w4 | "
    "dq-toolchain calibrate --effort quick | "
    f"dq-toolchain calibrate --target {backends.names()[-1]} | "
    "dq-toolchain calibrate --model ./my-unet --recipe dq.toml --device cuda | "
    "dq-toolchain calibrate --model owner/name --guidance 7.5 --prompts prompts.txt --offload"
)
def calibrate(
    recipe: RecipeFile = None,
    model: ModelName = None,
    variant: Annotated[str | None, typer.Option(help="of the model's weight files, such as fp16")] = None,
    lora: Annotated[Path | None, typer.Option(help="safetensors file of adapters, added to the weights")] = None,
    lora_scale: Annotated[float | None, typer.Option(help="multiplies what they add  [default: 1]")] = None,
    scheduler: Annotated[
        Path | None, typer.Option(help="folder with scheduler_config.json  [default: the model's own]")
    ] = None,
    vae: Annotated[
        Path | None,
        typer.Option(
            help="folder of an autoencoder, such as TAESD, or of a pipeline with one: its decoder goes into bundles  [default: the "
            "model's own]"
        ),
    ] = None,
    out: Out = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            "-t",
            help=f"{' | '.join(backends.names())}: activations that are not set are as this target is best calibrated, and what it "
            "does not take is refused at once  [default: 8 bits, symmetric]",
            autocompletion=complete_targets,
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="accuquant, its control single-step, or a published one for comparison (docs/METHOD.md), or several "
            "joined by '+'  [default: accuquant]",
            autocompletion=complete_methods,
        ),
    ] = None,
    effort: Annotated[
        str | None,
        typer.Option(
            help="quick | standard | best: with the bits it decides samples, iterations and learning rates that are not set. Above "
            "6 bits only best has a fit; with 4-bit weights more effort pays  [default: standard]"
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="denoising steps  [default: 20]")] = None,
    guidance: Annotated[
        float | None,
        typer.Option(help="classifier-free guidance scale, 1 and less is none  [default: 1; embedded model: 3]"),
    ] = None,
    no_clip: Annotated[
        bool | None,
        typer.Option("--no-clip", help="sample without the limits that the scheduler puts on predicted images"),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="text file, one prompt per line  [default: a built-in list]")
    ] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="what guidance leads away from  [default: empty]")] = None,
    conditioning: Annotated[
        Path | None, typer.Option(help="instead of prompts: safetensors with cond.NAME and uncond.NAME")
    ] = None,
    weight_bits: Annotated[int | None, typer.Option(help="2-8  [default: 8]")] = None,
    activation_bits: Annotated[
        int | None, typer.Option(help="2-8, or 16 for targets that take it  [default: 8]")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="bits layer by layer: size=SHARE of FP32's, psnr>=DB, or both")
    ] = None,
    scheme: Annotated[str | None, typer.Option(help="symmetric | affine  [default: symmetric]")] = None,
    step_groups: Annotated[
        int | None, typer.Option(help="step groups  [default: one per network call of up to 8, else 5]")
    ] = None,
    outputs: Annotated[
        str | None,
        typer.Option(
            help="none | range | fitted: what is kept of outputs of products, for targets that quantize them  [default: none]"
        ),
    ] = None,
    step_vectors: Annotated[
        bool | None,
        typer.Option(
            "--step-vectors", help="what depends on the timestep alone comes from a table with one row per step"
        ),
    ] = None,
    keep_float: Annotated[
        list[str] | None, typer.Option(help="layer or module that stays in float; * stands for anything")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="FP32 trajectories to measure ranges and fit on  [default: by bits and effort]")
    ] = None,
    ranges: Annotated[str | None, typer.Option(help="mse | minmax | percentile  [default: mse]")] = None,
    rounding: Annotated[
        str | None,
        typer.Option(
            help="closed-form+learned | closed-form | learned | nearest  [default: by bits; with --offload closed-form]"
        ),
    ] = None,
    warmup: Annotated[int | None, typer.Option(help="single-step iterations  [default: by bits and effort]")] = None,
    iterations: Annotated[
        int | None, typer.Option(help="multi-step iterations that learn rounding too  [default: 0]")
    ] = None,
    settling: Annotated[
        int | None,
        typer.Option(help="multi-step iterations with the integers as they are  [default: 0]"),
    ] = None,
    horizon: Annotated[int | None, typer.Option(help="denoising steps simulated per iteration")] = None,
    gradient: Annotated[str | None, typer.Option(help="adjoint | surrogate | full  [default: adjoint]")] = None,
    more_steps: Annotated[
        str | None,
        typer.Option(
            help="comma-separated, such as 8,50: other step counts that get held-out rollouts, which `export --steps` needs to "
            "put them into a bundle; the network is calibrated at --steps alone  [default: none]"
        ),
    ] = None,
    more_guidance: Annotated[
        str | None, typer.Option(help="the same for guidance scales and `export --guidance`  [default: none]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="seed of the calibration samples  [default: 0]")] = None,
    device: Annotated[str | None, typer.Option(help="auto | cpu | cuda  [default: auto]")] = None,
    precision: PrecisionName = None,
    offload: Annotated[
        bool | None, typer.Option("--offload", help="if memory is short: rounding in closed form, no gradient of it")
    ] = None,
    json_: Json = False,
) -> None:
    """Quantize a network: integer weights, and activation parameters per step group. Continues a killed run."""
    settings = calibration_recipe(locals())
    backends.suited(settings)
    check_recipe(settings)
    from dq_toolchain.api.calibration import calibrated
    from dq_toolchain.toolchain.render.summary import calibration_summary, show_calibration

    found = calibrated(settings, Reporter())
    if found.held_out is None:  # not the first of several processes, which writes and prints
        return
    summary = calibration_summary(found.folder, found.artifact, found.reference)
    if json_:
        print_json(summary)
    else:
        show_calibration(console, summary)
    if summary["budget"] is not None and not summary["budget"]["met"]:
        raise typer.Exit(1)
