"""Golden vectors of torch's random numbers, for the programs that draw the start noise of a prompt on a device.

    python -m scripts.golden.noise [--out runtime_samples/golden/noise.json]

Run it on x86 with AVX2: torch's kernels for other processors differ in the last bits.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import torch

OUT = Path("runtime_samples/golden/noise.json")
SEEDS = (0, 7, 42, 2**32 - 1, 2**32 + 7, 2**40 + 123, 2**63 + 5, 2**64 - 1)
SIZES = (4, 15, 16, 17, 100, 4 * 16 * 16, 16384 + 3, 3, 5, 31)
"""Drawn one after the other from one generator. The small odd ones show that the number left over is kept, and for how long."""
SHOWN = 20


def is_standard() -> bool:
    """Whether torch computes here what the programs reproduce."""
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def draws(seed: int, sizes: tuple[int, ...]) -> list[torch.Tensor]:
    """float32, one tensor (size,) for each of ``sizes``."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return [torch.randn(size, generator=generator) for size in sizes]


def vectors() -> dict[str, Any]:
    """What noise.json holds: of each draw the first and the last numbers, exact, and a hash of its little-endian float32."""

    def row(x: torch.Tensor) -> dict[str, Any]:
        digest = hashlib.sha256(x.numpy().astype("<f4").tobytes()).hexdigest()
        return {"size": len(x), "first": x[:SHOWN].tolist(), "last": x[-SHOWN:].tolist(), "sha256": digest}

    cases = [{"seed": str(seed), "draws": [row(x) for x in draws(seed, SIZES)]} for seed in SEEDS]
    return {"cases": cases}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out
    if not is_standard():
        parser.error("this processor has no AVX2, torch draws other bits; run it on x86 with AVX2")
    rows = ",\n".join(map(json.dumps, vectors()["cases"]))
    out.write_text(f'{{"cases": [\n{rows}\n]}}\n')


if __name__ == "__main__":
    main()
