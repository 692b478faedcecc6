"""report.json and report.md, made of what the parts have written so far."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.goals import judged
from benchmarks.gpu.parts import Part
from dq_toolchain.toolchain.disk.files import write_bytes, write_json

SCHEMA = "dq-toolchain/gpu-report"
NOT_BEGUN = "not begun"


def write_report(out: Path, parts: Sequence[Part], states: dict[str, dict[str, Any]], about: dict[str, Any]) -> None:
    """Write both. Raises ToolchainError.

    Args:
        states: by part, what the driver knows: state, reason, limit. about: the run itself.
    """
    found = []
    for number, part in enumerate(parts):
        content = read(record_of(out, number, part))
        found.append(
            {"part": part.name, "title": part.title, "state": NOT_BEGUN, **states.get(part.name, {}), **content}
        )
    goals = judged({each["part"]: each.get("values", {}) for each in found}, not about["tiny"])
    report = {"schema": SCHEMA, **about, "goals": goals, "parts": found}
    write_json(out / "report.json", report)
    write_bytes(out / "report.md", markdown(report).encode())


def record_of(out: Path, number: int, part: Part) -> Path:
    return out / f"{number:02}_{part.name}.json"


def read(path: Path) -> dict[str, Any]:
    """A part's record; nothing if it wrote none."""
    content: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return content


def markdown(report: dict[str, Any]) -> str:
    limit = f"of {report['minutes']:g} minutes at most"
    kind = f"{limit}; a dry run on tiny networks, no figure here means anything" if report["tiny"] else limit
    lines = ["# GPU report", "", f"{report['card']}, {report['started']}, {report['seconds']:.0f} s {kind}.", ""]
    lines += ["## Goals", "", "They are meant for an H100.", "", *table(report["goals"]), ""]
    for part in report["parts"]:
        seconds = f", {part['seconds']:.0f} s" if "seconds" in part else ""
        limit = f" of {part['limit']:.0f} s" if "limit" in part else ""
        lines += [f"## {part['title']}", "", f"`{part['part']}`: {part['state']}{seconds}{limit}.", ""]
        if part.get("reason"):
            lines += ["```text", part["reason"], "```", ""]
        for name, rows in part.get("tables", {}).items():
            lines += [f"**{name}**", "", *table(rows), ""]
        if part.get("values"):
            lines += [*table([{"value": name, "is": value} for name, value in part["values"].items()]), ""]
    return "\n".join(lines)


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of a Markdown table; columns in the order in which they first appear."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return lines + [f"| {' | '.join(cell(row.get(name)) for name in columns)} |" for row in rows]


def cell(value: object) -> str:
    text = "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(text.split()).replace("|", "\\|")
