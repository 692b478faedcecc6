"""What step groups cost in the bundle: bytes and milliseconds per step with 1 and with 5, embedded model.

    python -m benchmarks.step_groups [--json step_groups.json]

The two bundles take turns, so that a busy machine slows both alike. Ranges only: fitting changes neither size nor time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import fit, prepare, recipe_of
from dq_toolchain import backends
from dq_toolchain.calibrate.finish import held_out_reference
from dq_toolchain.calibrate.run import ROLLOUT_BATCH
from dq_toolchain.calibrate.samples import draw, held_out_seeds
from dq_toolchain.toolchain.bundle import RANGES, Bundle
from dq_toolchain.toolchain.recipe import Recipe

COUNTS = (1, 5)
TURNS = 7


def export(count: int, folder: Path) -> Bundle:
    """The bundle of a ranges-only calibration with ``count`` step groups."""
    recipe = recipe_of({"quantize": {"step_groups": count}, "sampler": {"guidance": 1.0}, "calibrate": {"samples": 32}})
    prepared = prepare(recipe)
    artifact, _ = fit(prepared, recipe, iterations=False)
    samples = draw(prepared.state.model.unet, prepared.state.table, recipe, held_out_seeds(4))
    reference = held_out_reference(artifact, prepared.state.prepared.unet, samples, ROLLOUT_BATCH)
    artifact.save(folder / "calibration", reference)
    backend = backends.load("executorch")
    return backend.lower(artifact, folder / "calibration", folder / "bundle", Recipe(), lambda text: None)


def measure(folder: Path) -> dict[str, Any]:
    bundles = {count: export(count, folder / str(count)) for count in COUNTS}
    times: dict[int, list[float]] = {count: [] for count in COUNTS}
    backend = backends.load("executorch")
    for _ in range(TURNS):
        for count, bundle in bundles.items():
            place = folder / str(count) / "bundle"
            report = backend.run(bundle, place, place, 4, 1, lambda done, total: None)
            times[count].append(statistics.median(json.loads(report.read_text())["step_ms"]))
    model = {count: bundle.sizes[bundle.program] for count, bundle in bundles.items()}
    ranges = {count: bundle.sizes[RANGES] for count, bundle in bundles.items()}
    few, many = COUNTS
    return {
        "model_bytes": model,
        "ranges_bytes": ranges,
        "growth": (model[many] + ranges[many]) / (model[few] + ranges[few]) - 1,
        "step_ms": {count: statistics.median(values) for count, values in times.items()},
        "step_ms_ratio": statistics.median(b / a for a, b in zip(times[few], times[many], strict=True)),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        result = measure(Path(place))
    print(json.dumps(result, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
