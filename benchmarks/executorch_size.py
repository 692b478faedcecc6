"""ExecuTorch export of Stable Diffusion 1.5's topology with random weights: seconds, peak memory, bytes.

    python -m benchmarks.executorch_size [--scale 1] [--step-groups 4] [--weight-bits 8] [--execute]

--scale 1 is the full size, 860 M parameters; 8 divides all widths by eight. Lowers and audits the program as the command does,
in a temporary folder; --execute then runs it once. Peak memory is the process's, so run one size per process.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.sd15 import example, parameters, random_artifact
from dq_toolchain.backends.common.machine import peak_memory
from dq_toolchain.backends.executorch.graph.program import call_counts
from dq_toolchain.backends.executorch.lowering import METHOD, PROGRAM, sentinel_program
from dq_toolchain.backends.executorch.proof.audit import audit
from dq_toolchain.backends.executorch.proof.pte_file import read_pte
from dq_toolchain.backends.executorch.runtime.device import Device
from dq_toolchain.toolchain.disk.files import write_bytes


def peak() -> float:
    """Of this process so far, GiB."""
    return round(peak_memory() / 2**30, 2)


def measure(scale: float, step_groups: int, weight_bits: int, execute: bool) -> dict[str, Any]:
    artifact, call = random_artifact(scale, step_groups, weight_bits), example(scale)
    found: dict[str, Any] = {"parameters": parameters(artifact), "layers": len(artifact.layers), "loaded_gib": peak()}
    with tempfile.TemporaryDirectory() as name:
        path, begin = Path(name) / PROGRAM, time.perf_counter()
        unet = artifact.build_float_unet()
        calls = call_counts(unet, call)
        found["float_run"] = {"seconds": round(time.perf_counter() - begin, 1), "peak_gib": peak()}
        data, ranges = sentinel_program(artifact, unet, call)
        found["lowered"] = {"seconds": round(time.perf_counter() - begin, 1), "peak_gib": peak()}
        write_bytes(path, data)
        audit(read_pte(path), artifact, ranges, None, calls)
        found["audited"] = {"seconds": round(time.perf_counter() - begin, 1), "peak_gib": peak()}
        found["program_bytes"] = path.stat().st_size
        if execute:
            del data, unet
            device, begin = Device(path, (METHOD,)), time.perf_counter()
            out = device(METHOD, call.with_ranges(ranges[:1]).arguments)
            found["executed"] = {
                "finite": bool(out.isfinite().all()),
                "load_ms": round(device.load_ms),
                "seconds": round(time.perf_counter() - begin, 1),
                "peak_gib": peak(),
            }
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--step-groups", type=int, default=4)
    parser.add_argument("--weight-bits", type=int, choices=(4, 8), default=8)
    parser.add_argument("--execute", action="store_true")
    given = parser.parse_args()
    print(json.dumps(measure(given.scale, given.step_groups, given.weight_bits, given.execute), indent=1))
