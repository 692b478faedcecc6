"""The device report: what ran where and how fast, with the latents beside it; whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from bundle import Bundle, sha256
from errors import Refused
from metrics import figures, plain
from reference import Reference
from safetensors_file import write_tensors
from sampler import Network, Samples

JSON, TENSORS = "report.json", "report.safetensors"
SCHEMA, VERSION = "dq-toolchain/report", 1
MODEL, L4T = Path("/proc/device-tree/model"), Path("/etc/nv_tegra_release")


def device_name(model: Path = MODEL) -> str:
    """The board as the device tree names it, e.g. "NVIDIA Jetson Orin Nano Developer Kit"; elsewhere the architecture."""
    try:
        text = model.read_bytes().rstrip(b"\0").decode("utf-8", "replace").strip()
    except OSError:
        text = ""
    return text or f"{platform.processor() or platform.machine()}, {os.cpu_count() or 1} cores"


def versions(network: Network) -> dict[str, str]:
    """System, interpreter and libraries, by name; ``l4t`` is the first line of Jetson Linux's release file."""
    found = {
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        **network.versions,
    }
    with contextlib.suppress(OSError, IndexError):
        found["l4t"] = L4T.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
    return found


def peak_memory() -> int:
    """Largest resident size of this process, bytes; what the GPU allocated is not part of it."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):  # getrusage's figure starts with the size of the parent process
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def write_report(folder: Path, bundle: Bundle, reference: Reference, network: Network, samples: Samples) -> Path:
    """Write report.safetensors, then report.json; returns the path of the latter. Raises Refused: it cannot be written."""
    try:
        return _write(folder, bundle, reference, network, samples)
    except OSError as error:
        raise Refused(
            f"cannot write the report to {folder}: {error.strerror}; give --report a folder with space that you may "
            "write to"
        ) from error


def _write(folder: Path, bundle: Bundle, reference: Reference, network: Network, samples: Samples) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JSON).unlink(missing_ok=True)
    tensors = {"latents": samples.latents}
    if samples.outputs_at_simulation is not None:
        tensors["outputs_at_simulation"] = samples.outputs_at_simulation
    part = folder / f"{TENSORS}.part"
    write_tensors(part, tensors)
    digest = sha256(part)
    part.replace(folder / TENSORS)
    data = {
        "schema": SCHEMA, "schema_version": VERSION, "target": bundle.target,
        "runtime": {"name": network.name, "version": network.version}, "device": device_name(), "versions": versions(network),
        "compute_unit": network.compute_unit, "bundle_sha256": bundle.sha256,
        "bundle": os.path.relpath(bundle.folder.resolve(), folder.resolve()), "load_ms": plain(network.load_ms),
        "step_ms": [plain(time) for time in samples.step_ms], "peak_memory_bytes": peak_memory(), "files": {TENSORS: digest},
        **({"steps": bundle.asked, "guidance": float(bundle.guidance)} if bundle.samplings else {}),
        **figures(samples.latents, reference.fp32_latents, reference.simulation_latents),
    }  # fmt: skip
    return _write_json(folder / JSON, data)


def _write_json(path: Path, data: Mapping[str, Any]) -> Path:
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(path)
    return path
