"""The commands: arguments in, one call per command, results out. No logic lives here.

Results go to stdout (tables, or JSON with --json), everything else to stderr. ``entry`` runs them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.progress import Reporter
from dq_toolchain.toolchain.recipe import load_recipe

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Diffusion models on phones and embedded accelerators, in integers, with proof that the pictures stay right.",
    epilog="Start with: dq-toolchain calibrate && dq-toolchain export && dq-toolchain run && dq-toolchain validate",
)
console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=200)

RecipeFile = Annotated[Path | None, typer.Option("--recipe", "-r", help="TOML file; flags override it")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="output folder  [default: dq-out]")]
ModelName = Annotated[Path | None, typer.Option(help="diffusers folder or hub id owner/name  [default: embedded digits]")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object on stdout")]
Target = Annotated[str | None, typer.Option("--target", "-t", help="see `dq-toolchain targets`  [default: executorch]")]


def _check_flags_of(target: str, sections: dict[str, dict[str, Any]]) -> None:
    """Raise RecipeError for a flag that only other targets understand."""
    given = [name for flags in sections.values() for name, value in flags.items() if value is not None]
    for name in given:
        owners = [section for section, flags in sections.items() if name in flags]
        if target not in owners:
            raise RecipeError(f"--{name.replace('_', '-')} is for target {' or '.join(map(repr, owners))}, got target {target!r}; "
                              "leave it out")


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=1))


@app.command(epilog="Examples:  dq-toolchain calibrate | dq-toolchain calibrate --weight-bits 4 --steps 20 --out w4 | "
                    "dq-toolchain calibrate --model ./my-unet --recipe dq.toml --device cuda | "
                    "dq-toolchain calibrate --model owner/name --guidance 7.5 --prompts prompts.txt --offload")
def calibrate(
    recipe: RecipeFile = None,
    model: ModelName = None,
    variant: Annotated[str | None, typer.Option(help="of the model's weight files, such as fp16")] = None,
    lora: Annotated[Path | None, typer.Option(help="safetensors file of adapters, added to the weights")] = None,
    lora_scale: Annotated[float | None, typer.Option(help="multiplies what they add  [default: 1]")] = None,
    scheduler: Annotated[Path | None, typer.Option(help="folder with scheduler_config.json  [default: the model's own]")] = None,
    out: Out = None,
    method: Annotated[str | None, typer.Option(help="accuquant, or a published one for comparison (docs/METHOD.md), or both "
                                                    "joined by '+'  [default: accuquant]")] = None,
    steps: Annotated[int | None, typer.Option(help="denoising steps  [default: 20]")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="classifier-free guidance scale, 1 is none  [default: 1; embedded model: 3]")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="text file, one prompt per line  [default: a built-in list]")] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="what guidance leads away from  [default: empty]")] = None,
    conditioning: Annotated[Path | None, typer.Option(help="instead of prompts: safetensors with cond.NAME and "
                                                           "uncond.NAME")] = None,
    weight_bits: Annotated[int | None, typer.Option(help="2-8  [default: 8]")] = None,
    activation_bits: Annotated[int | None, typer.Option(help="2-8  [default: 8]")] = None,
    budget: Annotated[str | None, typer.Option(help="bits layer by layer: size=SHARE of FP32's, psnr>=DB, or both")] = None,
    scheme: Annotated[str | None, typer.Option(help="symmetric | affine  [default: symmetric]")] = None,
    step_groups: Annotated[int | None, typer.Option(help="step groups  [default: 5]")] = None,
    keep_float: Annotated[list[str] | None, typer.Option(help="layer or module that stays in float; * stands for anything")] = None,
    samples: Annotated[int | None, typer.Option(help="FP32 trajectories to fit on  [default: 128]")] = None,
    ranges: Annotated[str | None, typer.Option(help="mse | minmax | percentile  [default: mse]")] = None,
    rounding: Annotated[str | None, typer.Option(help="learned | nearest  [default: learned]")] = None,
    warmup: Annotated[int | None, typer.Option(help="single-step iterations")] = None,
    iterations: Annotated[int | None, typer.Option(help="multi-step iterations that learn rounding too  [default: 0]")] = None,
    settling: Annotated[int | None, typer.Option(help="multi-step iterations with the integers as they are")] = None,
    horizon: Annotated[int | None, typer.Option(help="denoising steps simulated per iteration")] = None,
    gradient: Annotated[str | None, typer.Option(help="adjoint | surrogate | full  [default: adjoint]")] = None,
    seed: Annotated[int | None, typer.Option(help="seed of the calibration samples  [default: 0]")] = None,
    device: Annotated[str | None, typer.Option(help="auto | cpu | cuda  [default: auto]")] = None,
    offload: Annotated[bool | None, typer.Option("--offload", help="if memory is short: block by block, records on disk")] = None,
    json_: Json = False,
) -> None:
    """Quantize a UNet: integer weights, and activation parameters per step group. Continues a killed run."""
    settings = load_recipe(recipe, {
        "model": {"path": model, "variant": variant, "lora": lora, "lora_scale": lora_scale, "scheduler": scheduler},
        "run": {"out": out, "seed": seed, "device": device, "offload": offload},
        "sampler": {"steps": steps, "guidance": guidance},
        "conditioning": {"file": conditioning, "prompts": prompts, "negative_prompt": negative_prompt},
        "quantize": {"weight_bits": weight_bits, "activation_bits": activation_bits, "budget": budget, "scheme": scheme,
                     "step_groups": step_groups, "keep_float": keep_float or None},
        "calibrate": {"method": method, "samples": samples, "ranges": ranges, "rounding": rounding, "warmup": warmup,
                      "iterations": iterations, "settling": settling, "horizon": horizon, "gradient": gradient},
    })
    from dq_toolchain.calibrate.run import calibrate as run_calibrate
    from dq_toolchain.toolchain.summary import calibration_summary, show_calibration

    folder, artifact, reference = run_calibrate(settings, Reporter())
    summary = calibration_summary(folder, artifact, reference)
    if json_:
        _print_json(summary)
    else:
        show_calibration(console, summary)
    if summary["budget"] is not None and not summary["budget"]["met"]:
        raise typer.Exit(1)


@app.command(epilog="Examples:  dq-toolchain compare --methods minmax,mse,accuquant --bits W8A8,W4A8 | "
                    "dq-toolchain compare --model ./my-unet --steps 20,50 --seeds 3 --recipe dq.toml --out study")
def compare(
    recipe: RecipeFile = None,
    model: ModelName = None,
    out: Out = None,
    methods: Annotated[str | None, typer.Option(help="comma-separated; combinations joined by '+'  [default: all]")] = None,
    bits: Annotated[str | None, typer.Option(help="comma-separated, such as W8A8,W4A8  [default: the recipe's]")] = None,
    steps: Annotated[str | None, typer.Option(help="comma-separated, such as 20,50  [default: the recipe's]")] = None,
    seeds: Annotated[int, typer.Option(help="calibration seeds, for the spread  [default: 1]", show_default=False)] = 1,
    held_out: Annotated[int, typer.Option(help="held-out seeds to judge on  [default: 256]", show_default=False)] = 256,
    json_: Json = False,
) -> None:
    """Calibrate one model with several methods and compare them: OUT/compare. Continues; exit code 1 if a cell failed."""
    from dq_toolchain.calibrate.compare.command import compare as run_compare
    from dq_toolchain.calibrate.compare.plan import Request
    from dq_toolchain.calibrate.compare.progress import GridReporter
    from dq_toolchain.calibrate.compare.show import show_comparison

    comparison = run_compare(Request(recipe, model, out, methods, bits, steps, seeds, held_out), GridReporter())
    if json_:
        _print_json(comparison.to_json())
    else:
        show_comparison(console, comparison)
    if comparison.with_state("failed"):
        raise typer.Exit(1)


@app.command(epilog="Examples:  dq-toolchain export | dq-toolchain export --target executorch --form static | "
                    "dq-toolchain export --target coreml --runtime-scales | dq-toolchain export --target tensorrt --check-build")
def export(
    target: Target = None, recipe: RecipeFile = None, out: Out = None,
    calibration: Annotated[Path | None, typer.Option(help="artifact folder  [default: OUT/calibration]")] = None,
    form: Annotated[str | None, typer.Option(help="executorch: sentinel | static  [default: sentinel]")] = None,
    ios: Annotated[int | None, typer.Option(help="coreml: oldest iOS, 17 | 18 | 26  [default: 18]")] = None,
    precision: Annotated[str | None, typer.Option(
        help="between integer layers, fp16 | fp32  [default: coreml fp16; tensorrt fp32, for JetPack 6]")] = None,
    runtime_scales: Annotated[
        bool | None, typer.Option("--runtime-scales", help="coreml: one function, ranges as input; all that iOS 17 takes")
    ] = None,
    lut: Annotated[bool | None, typer.Option("--lut", help="coreml: 4-bit weights as int8 tables")] = None,
    layout: Annotated[str | None, typer.Option(help="coreml: plain | neural-engine  [default: plain]")] = None,
    quantize_outputs: Annotated[
        bool | None, typer.Option("--quantize-outputs", help="coreml: integers behind every layer too")
    ] = None,
    chunks: Annotated[int | None, typer.Option(help="coreml: packages that the network is cut into, 1 | 2  [default: 1]")] = None,
    mode: Annotated[
        str | None, typer.Option(help="tensorrt: static | ratio (one engine, ranges as input)  [default: static]")] = None,
    check_build: Annotated[
        bool | None, typer.Option("--check-build", help="tensorrt: compile with NVIDIA's compiler, on the CPU")
    ] = None,
    json_: Json = False,
) -> None:
    """Lower a calibration artifact to a target's file, audit it, and write the bundle OUT/TARGET."""
    sections: dict[str, dict[str, Any]] = {
        "executorch": {"form": form},
        "coreml": {"ios": ios, "precision": precision, "runtime_scales": runtime_scales, "lut": lut, "layout": layout,
                   "quantize_outputs": quantize_outputs, "chunks": chunks},
        "tensorrt": {"mode": mode, "precision": precision, "check_build": check_build},
    }
    settings = load_recipe(recipe, {"run": {"out": out}, "export": {"target": target}, **sections})
    _check_flags_of(settings.export.target, sections)
    from dq_toolchain import backends
    from dq_toolchain.toolchain.artifact import Artifact
    from dq_toolchain.toolchain.summary import bundle_summary, show_bundle

    backend = backends.load(settings.export.target)
    source = calibration or settings.run.out / "calibration"
    folder = settings.run.out / settings.export.target
    bundle = backend.lower(Artifact.load(source), source, folder, settings, Reporter().say)
    summary = bundle_summary(folder, bundle)
    if json_:
        _print_json(summary)
    else:
        show_bundle(console, summary)


@app.command(epilog="Examples:  dq-toolchain run | dq-toolchain run --target executorch --seeds 4 --threads 1")
def run(
    target: Target = None, out: Out = None,
    bundle: Annotated[Path | None, typer.Option(help="bundle folder  [default: OUT/TARGET]")] = None,
    report: Annotated[Path | None, typer.Option(help="folder for the device report  [default: the bundle]")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="held-out seeds to run  [default: all]")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="threads of the runtime  [default: its own choice]")] = None,
    json_: Json = False,
) -> None:
    """Execute a bundle on this machine through the whole sampler and write the device report."""
    from dq_toolchain import backends
    from dq_toolchain.toolchain.bundle import Bundle

    settings = load_recipe(None, {"run": {"out": out}, "export": {"target": target}})
    folder = bundle or settings.run.out / settings.export.target
    loaded = Bundle.load(folder)
    reporter = Reporter()
    backend = backends.load(loaded.target)
    with reporter.bar("sampling") as progress:
        path = backend.run(loaded, folder, report or folder, seeds, threads, progress)
    if json_:
        _print_json(json.loads(path.read_text(encoding="utf-8")) | {"report": str(path)})
    else:
        console.print(f"device report: {escape(str(path))}\nnext: dq-toolchain validate {escape(str(path))}", soft_wrap=True)


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
        _print_json(verdicts[0].to_json() if len(verdicts) == 1 else to_json(verdicts))
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
    from dq_toolchain.toolchain.doctor import examine
    from dq_toolchain.toolchain.show import show_checks

    settings = load_recipe(None, {"run": {"out": out}, "export": {"target": target}})
    checks = examine(bundle or settings.run.out / settings.export.target)
    if json_:
        _print_json({"passed": all(check.passed for check in checks), "checks": [check.to_json() for check in checks]})
    else:
        show_checks(console, checks)
    if not all(check.passed for check in checks):
        raise typer.Exit(1)


@app.command(epilog="Examples:  dq-toolchain inspect | dq-toolchain inspect dq-out/executorch --json")
def inspect(
    path: Annotated[Path | None, typer.Argument(help="artifact or bundle folder  [default: OUT/calibration]")] = None,
    out: Out = None, json_: Json = False,
) -> None:
    """Print every site with bits, scheme and range, and what stays in float and why."""
    from dq_toolchain.toolchain.summary import inspect_folder, show_inspection

    inspection = inspect_folder(path or load_recipe(None, {"run": {"out": out}}).run.out / "calibration")
    if json_:
        _print_json(inspection)
    else:
        show_inspection(console, inspection)


@app.command(epilog="Examples:  dq-toolchain targets | dq-toolchain targets --json")
def targets(json_: Json = False) -> None:
    """List the targets: what they need, what they hold, where they were verified."""
    from dataclasses import asdict

    from dq_toolchain import backends
    from dq_toolchain.toolchain.summary import show_targets

    found = [asdict(backends.describe(name)) for name in backends.names()]
    if json_:
        _print_json(found)
    else:
        show_targets(console, found)
