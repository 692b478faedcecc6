"""A bundle takes its place whole: the older one's manifest and ranges go first, reports beside them stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from dq_toolchain.backends.common.staging import staging
from dq_toolchain.toolchain.formats.bundle import JSON, RANGES


def test_an_older_bundle_is_replaced_and_a_report_stays(tmp_path: Path) -> None:
    out = tmp_path / "executorch"
    out.mkdir()
    for name in (JSON, RANGES, "model.pte", "report.json"):
        (out / name).write_text("old")
    with staging(out) as folder:
        for name in (JSON, "model.pte"):
            (folder / name).write_text("new")
        assert (out / JSON).read_text() == "old"
    assert {path.name: path.read_text() for path in out.iterdir()} == {
        JSON: "new", "model.pte": "new", "report.json": "old",
    }  # fmt: skip


def test_the_parts_of_an_older_pipeline_go_with_it(tmp_path: Path) -> None:
    """A network alone must not be drawn with text encoders of another one."""
    out = tmp_path / "executorch"
    (out / "parts").mkdir(parents=True)
    for name in (JSON, "pipeline.json", "parts/decoder.pte"):
        (out / name).write_text("old")
    with staging(out) as folder:
        (folder / JSON).write_text("new")
    assert {path.name for path in out.iterdir()} == {JSON}


def test_a_lowering_that_fails_leaves_the_older_bundle(tmp_path: Path) -> None:
    out = tmp_path / "executorch"
    out.mkdir()
    (out / JSON).write_text("old")

    def lower() -> None:
        with staging(out) as folder:
            (folder / JSON).write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        lower()
    assert (out / JSON).read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["executorch"]
