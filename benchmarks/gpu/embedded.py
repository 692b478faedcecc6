"""`calibrate` of the embedded model with its defaults, on the GPU and on half of the cores beside it: seconds and dB of both."""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import recipe_of
from benchmarks.gpu.record import Plan, Record
from dq_toolchain.calibrate.run import calibrate
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.metrics import psnr

SHORT = {"samples": 4, "batch": 2, "warmup": 2, "iterations": 0, "settling": 1, "group_iterations": 0}


def run(record: Record, plan: Plan) -> None:
    """Also the CPU's: it is a figure of the same machine, and of the same versions."""
    every = sorted(os.sched_getaffinity(0))
    half = len(every) // 2
    cores = {plan.device: every[: len(every) - half], "cpu": every[len(every) - half :] or every}
    with ProcessPoolExecutor(
        len(cores), multiprocessing.get_context("fork")
    ) as pool:  # forked before anything asks CUDA
        jobs = [
            pool.submit(calibration, device, where, plan.scratch / device, plan.tiny) for device, where in cores.items()
        ]
        for job in as_completed(jobs):
            row = job.result()
            record.row("Calibrations", **row)
            if row["device"] == plan.device:
                record.value("seconds", row["seconds"])
                record.value("psnr_db", row["psnr_db"])
            else:
                record.value("cpu_seconds", row["seconds"])
                record.value("cpu_psnr_db", row["psnr_db"])


def calibration(device: str, cores: list[int], out: Path, tiny: bool) -> dict[str, Any]:
    """One calibration in a process of its own, from nothing to the written artifact; imports are left out."""
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(len(cores))
    settings: dict[str, Any] = {"run": {"device": device, "out": out}}
    if tiny:
        settings |= {"calibrate": SHORT, "sampler": {"steps": 2}, "reference": {"seeds": 2}}
    begin = time.perf_counter()
    _, artifact, reference = calibrate(recipe_of(settings), Reporter(quiet=True))
    seconds = time.perf_counter() - begin
    quality = psnr(reference.simulation_latents[-1], reference.fp32_latents[-1])
    peak = torch.cuda.max_memory_reserved() / 1e9 if device == "cuda" else None
    return {
        "device": device,
        "cores": len(cores),
        "seconds": seconds,
        "psnr_db": float(quality.mean()),
        "psnr_db_10th_percentile": float(quality.quantile(0.1)),
        "held_out_seeds": len(quality),
        "peak_gb": peak,
        "stages": len(artifact.record["stages"]),
    }
