"""What step groups, affine ranges and the default fit add on the embedded model: W8A8, without and with guidance.

    python -m benchmarks.quality --held-out 128

Integer simulation against FP32 on held-out seeds. "Ranges only" is `calibrate --method mse`, "default" is `calibrate`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.common import Judge, Overrides, merged
from dq_toolchain.calibrate.pipeline import calibrated
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.recipe.loading import load_recipe

GUIDANCES = (1.0, 3.0)
METHODS = {"ranges only": "mse", "default": "accuquant"}
Row = dict[str, Any]


def row(name: str, seed: int, seconds: float, figures: dict[str, float], **more: Any) -> Row:
    return {"method": name, "seed": seed, **more, "fit_seconds": round(seconds, 1), **figures}


def rows(settings: Overrides, names: Sequence[str], held_out: int, **about: Any) -> Iterator[Row]:
    """A calibration for each name in METHODS, from the same FP32 rollouts, as ``calibrate`` makes it with ``settings``.

    Seconds are wall time of the calibration; rollouts count only for the first, the second finds them on disk.
    """
    with tempfile.TemporaryDirectory() as folder:
        judge: Judge | None = None
        for name in names:
            recipe = load_recipe(None, merged(settings, {"calibrate": {"method": METHODS[name]}}))
            begin = time.perf_counter()
            done = calibrated(recipe, Reporter(), Path(folder))
            seconds = time.perf_counter() - begin
            judge = judge or Judge(done.context, held_out)
            yield row(name, recipe.run.seed, seconds, judge.figures(done.artifact), **about)


def table(held_out: int, guidances: Sequence[float] = GUIDANCES) -> Iterator[Row]:
    """One step group gets ranges only: the default has five."""
    for guidance in guidances:
        for step_groups, scheme in ((1, "symmetric"), (5, "symmetric"), (5, "affine")):
            about = {"guidance": guidance, "step_groups": step_groups, "scheme": scheme}
            settings: Overrides = {
                "quantize": {"step_groups": step_groups, "scheme": scheme},
                "sampler": {"guidance": guidance},
            }
            yield from rows(settings, list(METHODS)[: 1 if step_groups == 1 else 2], held_out, **about)


def show(rows: list[Row]) -> None:
    columns = list(dict.fromkeys(key for one in rows for key in one))
    found = Table(*columns)
    for one in rows:
        found.add_row(*(f"{one[c]:.4g}" if isinstance(one.get(c), float) else str(one.get(c, "")) for c in columns))
    console = Console(width=160)
    console.print(found)
    for name in dict.fromkeys(one["method"] for one in rows):
        values = [one["psnr"] for one in rows if one["method"] == name]
        if len({one["seed"] for one in rows}) > 1:
            console.print(
                f"{name}: PSNR mean {statistics.mean(values):.2f} dB, spread {min(values):.2f} - {max(values):.2f}"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held-out", type=int, default=128, help="held-out seeds")
    parser.add_argument("--guidance", type=float, nargs="+", default=GUIDANCES)
    parser.add_argument("--json", type=Path, help="also write the rows here")
    arguments = parser.parse_args()
    result = []
    for one in table(arguments.held_out, arguments.guidance):
        print(one, flush=True)
        result.append(one)
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
