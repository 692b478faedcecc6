"""Core ML conversion of Stable Diffusion 1.5's topology with random weights: seconds, peak memory, bytes.

    python -m benchmarks.coreml_size [--scale 1] [--step-groups 4] [--weight-bits 8]

--scale 1 is the full size, 860 M parameters; 8 divides all widths by eight. Writes and audits the package as the command
does, in a temporary folder, and does not execute it. Peak memory is the process's, so run one size per process.
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
from dq_toolchain.backends.common.qdq.audit import Expected
from dq_toolchain.backends.common.qdq.qparams import QParams
from dq_toolchain.backends.coreml.lowering import write_program
from dq_toolchain.backends.coreml.package import MODEL, WEIGHT_FILE
from dq_toolchain.backends.coreml.settings import Settings


def measure(scale: int, step_groups: int, weight_bits: int) -> dict[str, Any]:
    artifact = random_artifact(scale, step_groups, weight_bits)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        written = write_program(
            artifact,
            example(scale),
            Settings(),
            Expected(QParams.of(artifact)),
            Path(folder),
            lambda text: print(text, flush=True),
        )
        package = Path(folder) / written.program
        return {
            "parameters": parameters(artifact),
            "layers": len(artifact.layers), "functions": len(written.sites),
            "seconds": round(time.perf_counter() - begin, 1),
            "peak_gib": round(peak_memory() / 2**30, 2),
            "weight_bytes": (package / WEIGHT_FILE).stat().st_size, "program_bytes": (package / MODEL).stat().st_size,
        }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, choices=(1, 2, 4, 8), default=1)
    parser.add_argument("--step-groups", type=int, default=4)
    parser.add_argument("--weight-bits", type=int, choices=(4, 8), default=8)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.scale, arguments.step_groups, arguments.weight_bits), indent=1))
