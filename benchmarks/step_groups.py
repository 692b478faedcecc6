"""What step groups cost in the bundle: bytes and milliseconds per step with 1 and with 5, embedded model.

    python -m benchmarks.step_groups [--json step_groups.json]

Both bundles hold the same program, byte for byte (checked), so it is loaded once and the two take turns call by call: two copies in
memory differ by more than what is measured. Ranges only: fitting changes neither size nor time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from benchmarks.common import fit, prepare, recipe_of
from dq_toolchain import backends
from dq_toolchain.backends.common.schedule import Schedule
from dq_toolchain.backends.executorch.runtime.device import Device
from dq_toolchain.backends.executorch.runtime.sampler import executor
from dq_toolchain.backends.executorch.settings import Settings
from dq_toolchain.backends.executorch.vendor import set_threads
from dq_toolchain.calibrate.data.context import ROLLOUT_BATCH
from dq_toolchain.calibrate.data.samples import held_out_seeds
from dq_toolchain.calibrate.finalize import held_out_reference
from dq_toolchain.toolchain.formats.bundle import RANGES, Bundle

COUNTS = (1, 5)
TURNS = 200


def export(count: int, folder: Path) -> Bundle:
    """The bundle of a ranges-only calibration with ``count`` step groups."""
    recipe = recipe_of({"quantize": {"step_groups": count}, "sampler": {"guidance": 1.0}, "calibrate": {"samples": 32}})
    prepared = prepare(recipe)
    artifact, _ = fit(prepared, recipe, iterations=False)
    samples = prepared.context.draw(held_out_seeds(4))
    reference = held_out_reference(
        artifact, prepared.context.prepared.network, artifact.table, samples, batch=ROLLOUT_BATCH
    )
    artifact.save(folder / "calibration", reference)
    backend = backends.load("executorch")
    return backend.lower(artifact, folder / "calibration", folder / "bundle", Settings(), lambda text: None)


def times(folder: Path, bundles: dict[int, Bundle]) -> dict[int, list[float]]:
    """Seconds of TURNS rounds over all steps, of the two in turn; who comes first changes from call to call."""
    few, many = COUNTS
    places = {count: folder / str(count) / "bundle" for count in COUNTS}
    programs = [(places[count] / bundles[count].program).read_bytes() for count in COUNTS]
    if programs[0] != programs[1]:
        raise SystemExit("the two programs differ; they must be the same bytes")
    set_threads(1)
    device = Device(programs[0], bundles[few].methods)
    execute = {count: executor(device, Schedule.of(bundles[count], places[count])) for count in COUNTS}
    reference, table = bundles[few].reference(places[few]), bundles[few].table
    cond, found = dict(reference.conditioning.select(slice(1)).cond), {count: [0.0] * TURNS for count in COUNTS}
    for turn in range(-1, TURNS):  # the first one warms up
        for k in range(table.calls):
            x, time = reference.simulation_latents[k][:1], torch.tensor([table.timesteps[k]])
            for count in (few, many) if (turn + k) % 2 else (many, few):
                start = perf_counter()
                execute[count](k, x, time, cond)
                if turn >= 0:
                    found[count][turn] += perf_counter() - start
    return found


def measure(folder: Path) -> dict[str, Any]:
    bundles = {count: export(count, folder / str(count)) for count in COUNTS}
    found = times(folder, bundles)
    model = {count: bundle.sizes[bundle.program] for count, bundle in bundles.items()}
    ranges = {count: bundle.sizes[RANGES] for count, bundle in bundles.items()}
    few, many = COUNTS
    steps = bundles[few].table.calls
    return {
        "model_bytes": model,
        "ranges_bytes": ranges,
        "growth": (model[many] + ranges[many]) / (model[few] + ranges[few]) - 1,
        "step_ms": {count: 1e3 * statistics.median(values) / steps for count, values in found.items()},
        "step_ms_ratio_quartiles": statistics.quantiles(
            (b / a for a, b in zip(found[few], found[many], strict=True)), n=4
        ),
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
