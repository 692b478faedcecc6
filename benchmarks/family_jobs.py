"""The jobs of ``benchmarks.families``, each in a process of its own: model, calibrate, export, run."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from scripts.published.against_diffusers import PROMPTS, largest_error, ours, theirs
from scripts.published.building import STORED, build
from scripts.published.layouts import LAYOUTS, Layout

import dq_toolchain as dq
from dq_toolchain.backends.common.machine import peak_memory
from dq_toolchain.toolchain.formats.bundle import Bundle
from dq_toolchain.toolchain.metrics import psnr

FEW: dict[str, dict[str, Any]] = {
    "calibrate": {"samples": 3, "batch": 2, "warmup": 2, "settling": 2, "group_iterations": 1, "horizon": 2},
    "blocks": {"rows": 6, "batch": 3, "iterations": 2, "activation_iterations": 1},
    "reference": {"seeds": 10},
}
NPU: dict[str, Any] = {"activation_bits": 16, "outputs": "range", "step_vectors": True}
EXACT: dict[str, dict[str, Any]] = {"coreml": {"precision": "fp32"}, "coreai": {"precision": "fp32"}}
"""In networks this small fp16 moves values across roundings in every layer: what conformance could see is lost in that."""
ONE_THREAD = ("coreml", "coreai")
"""Targets whose interpreters on this machine take no number of threads."""
DISTILLED = ("flux schnell", "flux.2 klein", "z-image turbo")
"""Layouts of models that are made for one conditional call per step."""


PRODUCT = re.compile("conv(?!ert)|depthwise|gemm|linear|fully|(batch_?)?mat")
"""What targets call products, in small letters."""
NO_LAYERS = ("attention products", "normalisation")
"""How reasons begin why products that belong to no layer are in float."""
Row = dict[str, Any]


def guidance_of(name: str) -> float:
    layout: Layout = LAYOUTS[name]
    return 1.0 if name in DISTILLED or not layout.guided else layout.scale


def model(layout: str, work: Path) -> Row:
    """Builds the folder; the largest relative error of the FP32 latents, over steps, against diffusers' pipeline."""
    made, folder = LAYOUTS[layout], build(LAYOUTS[layout], work / "model")
    settings = (made.steps, guidance_of(layout), "")
    context, samples, latents = ours(folder, work / "ours", *settings, bool(made.encoders), made.settings)
    reference = theirs(folder, samples, samples.start / context.table.init_noise_sigma, *settings)
    parameters = sum(each.numel() for each in context.network.parameters())
    return {"error": largest_error(latents[1:], reference), "parameters": parameters}


def calibrate(layout: str, work: Path, out: Path, npu: bool, keep_float: list[str]) -> Row:
    made, stored = LAYOUTS[layout], work / "model" / STORED
    dq.calibrate(
        work / "model", out=out, prompts=list(PROMPTS) if made.encoders else None, steps=made.steps,
        conditioning=stored if stored.is_file() else None, guidance=guidance_of(layout), device="cpu",
        keep_float=keep_float, recipe={**FEW, **made.settings}, **(NPU if npu else {}),
    )  # fmt: skip
    return {}


def export(out: Path, target: str, **more: Any) -> Row:
    alone: Row = {"export": {"unet_only": True}}
    return counts(dq.export(out / "calibration", target, recipe=alone, **EXACT.get(target, {}), **more).description)


def counts(made: Bundle) -> Row:
    """Of one network call: products in integers, and those of layers in float with the reasons, as read back from the program."""
    calls, integers = len(made.methods), [row for row in made.operations if " x int" in row.arithmetic]
    left = Counter[str]()
    for row in made.operations:
        if row not in integers and PRODUCT.match(row.name.lower()) and not row.why.startswith(NO_LAYERS):
            left[row.why] += row.count // calls
    products = sum(row.count for row in integers) // calls
    return {"integer_products": products, "float_layers": dict(left), "bytes": sum(made.sizes.values())}


def run(out: Path, target: str) -> Row:
    report = dq.run(out / target, threads=None if target in ONE_THREAD else 1)
    verdict = dq.validate(report)
    reference = Bundle.load(out / target).reference(out / target)
    latents = load_file(report.path.with_suffix(".safetensors"))["latents"][-1]
    wanted = {"psnr": reference.fp32_latents, "psnr_simulation": reference.expected_latents}
    return {
        "outcome": verdict.outcome,
        "failed": [check.name for check in verdict.checks if check.outcome != "pass"],
        **{name: float(psnr(latents, rows[-1]).median()) for name, rows in wanted.items()},
    }


JOBS: dict[str, Callable[..., Row]] = {"model": model, "calibrate": calibrate, "export": export, "run": run}


def worked(job: str, given: Row) -> Row:
    """What a job found, with seconds of the processor and the most memory that this process held, libraries included."""
    torch.set_num_threads(1)
    begin = time.process_time()
    found = JOBS[job](**given)
    return found | {"cpu_seconds": time.process_time() - begin, "peak_mb": peak_memory() / 1e6}
