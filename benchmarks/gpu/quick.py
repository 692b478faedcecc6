"""A whole calibration of Stable Diffusion 1.5's size with `--effort quick`, or how far it came.

Where it is refused for its memory it is tried again with what the refusal proposes, ``--offload``.
"""

from __future__ import annotations

import shutil
import time
from typing import Any

import torch

from benchmarks.gpu.following import Following
from benchmarks.gpu.network import FULL, TINY, Size, random_model, recipe_for
from benchmarks.gpu.record import Plan, Record
from benchmarks.sd15 import TEXT, TOKENS
from dq_toolchain.calibrate.run import calibrate
from dq_toolchain.toolchain.errors import CalibrationError
from dq_toolchain.toolchain.metrics import psnr
from dq_toolchain.toolchain.models.architectures import latent_shape
from dq_toolchain.toolchain.models.loading import Model

SHORT = {"samples": 4, "batch": 2, "warmup": 3, "settling": 0, "group_iterations": 0}
HELD_OUT, PASSES = 16, 3
"""Seeds by default, and passes for each: FP32, the simulation, FP32 where the simulation was."""
TRIES: tuple[tuple[str, dict[str, dict[str, Any]]], ...] = (
    ("--effort quick", {}),
    ("--effort quick --offload", {"run": {"offload": True}}),
)
REFUSED = "calibration needs about"
"""How the refusal begins (calibrate/prepare/memory.py)."""


def run(record: Record, plan: Plan) -> None:
    size = TINY if plan.tiny else FULL
    begin = time.perf_counter()
    model = random_model(size, plan.device)
    record.value("seconds_for_the_model", time.perf_counter() - begin)
    seeds = 2 if plan.tiny else HELD_OUT
    held_out = PASSES * seeds * size.steps * _pass_on_the_host(model, size)
    record.value("held_out_seconds_estimated", held_out)
    for name, sections in TRIES:
        out = plan.scratch / "out"
        recipe = recipe_for(
            size,
            plan.device,
            plan.scratch,
            calibrate={"effort": "quick", **(SHORT if plan.tiny else {}), **sections.get("calibrate", {})},
            reference={"seeds": seeds},
            run={"out": out, **sections.get("run", {})},
        )
        begin = time.perf_counter()

        def estimate(title: str, left: float, begin: float = begin) -> None:
            """By the pace of the fit, and what follows it on the host."""
            if title == "fitting":
                record.value("seconds_estimated", time.perf_counter() - begin + left + held_out)

        record.value("what", name)
        try:
            _, _, reference = calibrate(recipe, Following(record, estimate), model)
        except CalibrationError as error:
            if not str(error).startswith(REFUSED):
                raise
            record.row("Refused", what=name, why=str(error))
            shutil.rmtree(out)
            continue
        record.value("seconds", time.perf_counter() - begin)
        record.value("psnr_db", float(psnr(reference.simulation_latents[-1], reference.fp32_latents[-1]).mean()))
        if plan.device == "cuda":
            record.value("peak_gb", torch.cuda.max_memory_reserved() / 1e9)
        return
    raise CalibrationError("no way to calibrate it fits into the memory of this GPU")


@torch.no_grad()
def _pass_on_the_host(model: Model, size: Size) -> float:
    """Seconds of one call for one sample, both halves of its guidance, on the CPU, where held-out rollouts are run."""
    text = torch.zeros(2, TOKENS, int(TEXT / size.scale))
    latent = torch.zeros(2, *latent_shape(model.config))
    begin = time.perf_counter()
    model.network(latent, timestep=torch.zeros(2), encoder_hidden_states=text)
    return time.perf_counter() - begin
