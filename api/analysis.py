"""``dq.analyze``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dq_toolchain.api.results import Calibration, OnNote, OnProgress

if TYPE_CHECKING:
    from dq_toolchain.calibrate.bits.analysis import Analysis


def analyze(
    calibration: Calibration | str | Path,
    *,
    model: str | Path | None = None,
    runs: int = 32,
    device: str | None = None,
    progress: OnProgress | None = None,
    on_note: OnNote | None = None,
) -> Analysis:
    """Which layers make the error of the finished samples, and which of them to keep in float.

    Reads the artifact and the FP32 model; changes nothing. A call that was killed, with the same arguments, continues.

    Args:
        calibration: what ``calibrate`` returned, or its folder.
        model: where the FP32 model lies now; default: where it was calibrated from.
        runs: held-out samples, each run once through FP32 and back.
        device: "auto", "cpu" or "cuda"; default: the calibration's.
        progress: called with (task, done, total).
        on_note: called with a line about what is noticed or done.
    Returns:
        ``layers`` with shares of the error, weights and activations apart; ``in_float``: layers for ``keep_float`` that cost
        little there, and what they gain, measured.
    Raises:
        DqError: ArtifactError for a damaged artifact, or one made from a model in memory; ModelError for a model that is missing or
            not the one of the artifact; RecipeError for ``runs`` and ``device``.
    """
    from dq_toolchain.api.reporting import Callbacks
    from dq_toolchain.calibrate.bits.analysis import analyze as measure

    folder = calibration.folder if isinstance(calibration, Calibration) else Path(calibration)
    place = None if model is None else Path(model)
    return measure(folder, Callbacks(progress, on_note), model=place, runs=runs, device=device)
