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
) -> Verdict:
    """Judge a device report: fidelity to FP32 and conformance to the simulation.

    Args:
        report: what ``run`` returned, or report.json of a device, or the folder that holds it.
        bundle: that the report was made with; several: the one whose hash the report has; default: the place that it names.
        html: also write one self-contained page there.
    Returns:
        The verdict: ``passed``, ``outcome`` ("pass", "fail" or "not decided"), ``checks``, ``more_seeds``, ``remedy()``.
    Raises:
        DqError: ArtifactError where report or bundle is missing, damaged or edited, or they do not belong together.
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
    if html is not None:
        from dq_toolchain.toolchain.render.page import write_page

        write_page(Path(html), [verdict])
    return verdict
