"""``dq.validate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dq_toolchain.api.results import Bundle, Report

if TYPE_CHECKING:
    from dq_toolchain.toolchain.verdict.result import Verdict


def validate(
    report: Report | str | Path,
    *,
    bundle: Bundle | str | Path | Sequence[str | Path] | None = None,
    html: str | Path | None = None,
    clip: str | Path | None = None,
) -> Verdict:
    """Judge a device report: fidelity to FP32 and conformance to the simulation.

    Args:
        report: what ``run`` returned, or report.json of a device, or the folder that holds it.
        bundle: that the report was made with; several: the one whose hash the report has; default: the place that it names.
        html: also write one self-contained page there.
        clip: folder of a CLIP model as transformers saves it; scores the pictures of a whole pipeline (``chain.clip``), and
            decides nothing.
    Returns:
        The verdict: ``passed``, ``outcome`` ("pass", "fail" or "not decided"), ``checks``, ``more_seeds``, ``remedy()``.
    Raises:
        DqError: ArtifactError where report or bundle is missing, damaged or edited, or they do not belong together.
            ModelError where the CLIP model cannot be read.
    """
    from dq_toolchain.toolchain.verdict.judge import validate as judge

    folders: Path | list[Path] | None
    if isinstance(bundle, Bundle):
        folders = bundle.folder
    elif bundle is None or isinstance(bundle, str | Path):
        folders = None if bundle is None else Path(bundle)
    else:
        folders = [Path(folder) for folder in bundle]
    verdict = judge(report.path if isinstance(report, Report) else Path(report), folders)
    if clip is not None:
        from dq_toolchain.toolchain.parts.clip_scores import ClipModel

        verdict = verdict.scored(ClipModel(Path(clip)))
    if html is not None:
        from dq_toolchain.toolchain.render.page import write_page

        write_page(Path(html), [verdict])
    return verdict
