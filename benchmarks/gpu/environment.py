"""What the machine is: card, driver, versions; and what it does at its best, to compare the other figures with."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import psutil
import torch

from benchmarks.gpu.record import Plan, Record

PACKAGES = ("torch", "triton", "diffusers", "transformers", "accelerate", "safetensors", "peft", "pydantic", "numpy", "pytest",
            "hypothesis", "ray", "executorch", "torchao")  # fmt: skip
ASKED = ("name", "driver_version", "memory.total", "memory.used", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit",
         "persistence_mode", "mig.mode.current", "utilization.gpu")  # fmt: skip
SIDE, REPEATS = 8192, 5


def run(record: Record, plan: Plan) -> None:
    record.row("Machine", what="python", found=platform.python_version())
    record.row("Machine", what="system", found=platform.platform())
    record.row("Machine", what="CPU cores", found=len(os.sched_getaffinity(0)))
    record.row("Machine", what="memory, GB", found=psutil.virtual_memory().total / 1e9)
    record.row("Machine", what="free disk for large files, GB", found=shutil.disk_usage(plan.scratch).free / 1e9)
    for package in PACKAGES:
        record.row("Machine", what=package, found=_version(package))
    if plan.device == "cpu":
        record.value("card", f"CPU, {platform.machine()}")
    else:
        _gpu(record)
    for name, value in _nvidia_smi():  # last, for it may take long
        record.row("nvidia-smi", what=name, found=value)


def _gpu(record: Record) -> None:
    begin = time.perf_counter()
    usable = torch.cuda.is_available()
    try:
        if usable:
            torch.cuda.init()
    except RuntimeError as error:  # what was imported had asked CUDA before this process was forked
        print(error)
        usable = False
    record.value("usable", usable)
    if usable:
        record.value("start_of_cuda_seconds", time.perf_counter() - begin)
        _card(record)
        _speeds(record)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not there"


def _nvidia_smi() -> list[tuple[str, str]]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return [("nvidia-smi", "not there")]
    try:
        found = subprocess.run([tool, f"--query-gpu={','.join(ASKED)}", "--format=csv,noheader"], capture_output=True, text=True,
                               timeout=5)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return [("nvidia-smi", f"gave nothing: {error}")]
    if found.returncode:
        return [("nvidia-smi", found.stdout.strip() or found.stderr.strip())]
    return [
        (f"{name}, GPU {index}", value.strip())
        for index, line in enumerate(found.stdout.strip().splitlines())
        for name, value in zip(ASKED, line.split(","), strict=False)
    ]


def _card(record: Record) -> None:
    card, (free, total) = torch.cuda.get_device_properties(0), torch.cuda.mem_get_info(0)
    record.value("card", f"{torch.cuda.device_count()} x {card.name}")
    record.value("compute_capability", f"{card.major}.{card.minor}")
    record.value("multiprocessors", card.multi_processor_count)
    record.value("memory_gb", total / 1e9)
    record.value("free_memory_gb", free / 1e9)
    record.value("cuda", torch.version.cuda)
    record.value("cudnn", torch.backends.cudnn.version())


def _speeds(record: Record) -> None:
    """Products of two square matrices, and copies."""
    for name, dtype, tf32 in (("float32", torch.float32, False), ("float32 by TF32", torch.float32, True),
                              ("bfloat16", torch.bfloat16, False)):  # fmt: skip
        torch.backends.cuda.matmul.allow_tf32 = tf32
        x = torch.randn(SIDE, SIDE, device="cuda", dtype=dtype)
        seconds = _seconds(lambda x=x: x @ x)  # type: ignore[misc]
        record.row("Speed", what=f"products in {name}, TFLOP/s", found=2 * SIDE**3 / seconds / 1e12)
    torch.backends.cuda.matmul.allow_tf32 = False
    integers = torch.randint(-128, 128, (SIDE, SIDE), device="cuda", dtype=torch.int8)
    record.row("Speed", what="integer products, TOP/s",
               found=2 * SIDE**3 / _seconds(lambda: torch._int_mm(integers, integers)) / 1e12)  # fmt: skip
    block = torch.empty(2**28, device="cuda")
    record.row("Speed", what="copies on the GPU, GB/s", found=2 * block.nbytes / _seconds(block.clone) / 1e9)
    host = torch.empty(2**26, pin_memory=True)
    record.row("Speed", what="copies from pinned memory, GB/s", found=host.nbytes / _seconds(host.cuda) / 1e9)


def _seconds(work: Callable[[], object]) -> float:
    work()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(REPEATS):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) / REPEATS
