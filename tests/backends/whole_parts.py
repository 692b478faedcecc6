"""The parts of a whole small pipeline on a target: written, audited, executed and judged, as ``export`` does it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dq_toolchain.backends.common.cost import Cost
from dq_toolchain.backends.common.parts import OpenPart, add_parts
from dq_toolchain.backends.common.qdq.part_export import WritePart, lowering_of
from dq_toolchain.toolchain.models.loading import load_model
from tests import tiny_pipelines
from tests.calibrate.parts.test_make import written

PIPELINES: Mapping[str, Callable[[Path], Path]] = {
    "sd": tiny_pipelines.save_sd,
    "sdxl": tiny_pipelines.save_sdxl,
    "sd3": tiny_pipelines.save_sd3,
    "pixart": tiny_pipelines.save_pixart,
}

COST = Cost(library_mb=700, written=8.0, executed=8.0, seconds_per_layer=0.1)


def pipeline_of(name: str, folder: Path, write: WritePart[Any], open_part: OpenPart, settings: Any) -> dict[str, Any]:
    """pipeline.json of a bundle without a network."""
    found, _ = written(folder, load_model(PIPELINES[name](folder / "model")))
    assert found is not None
    bundle = folder / "bundle"
    bundle.mkdir()
    say: Callable[[str], None] = lambda _line: None  # noqa: E731
    add_parts(found, folder, bundle, lowering_of(write, found, folder, settings, say), open_part, say, COST)
    content: dict[str, Any] = json.loads((bundle / "pipeline.json").read_text())
    programs = [each["program"] for each in (*content["encoders"], content["decoder"])]
    assert all((bundle / program).exists() for program in programs)
    return content
