"""Small networks of every family, in their published layouts, through every target: verdict, PSNR, time, memory.

    python -m benchmarks.families [--families SANA,FLUX.2] [--targets executorch,qnn] [--folder WORK] [--json families.json]

Random weights, about a tenth of the published width. Each family's FP32 latents are compared with diffusers' own pipeline first.
Then a short calibration (the NPU takes a form of its own), and for each target an export and a run with its verdict, each in a
process of its own, whose processor time and peak memory are shown: the libraries' memory counts, the time of loading torch and
diffusers does not. A target that refuses gets what its error line asks for: another form of step groups, or a calibration with
layers in float. With --folder a run that was killed goes on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.common import recorded

FAMILIES = {
    "SD 3": "sd3",
    "SANA": "sana",
    "FLUX.1 schnell": "flux schnell",
    "FLUX.2 klein": "flux.2 klein",
    "Z-Image Turbo": "z-image turbo",
    "Qwen-Image": "qwen-image",
    "PixArt": "pixart alpha 512",
    "DiT": "dit",
    "SD 3.5": "sd35, dual attention",
    "SD 1.5": "sd15",
    "SDXL": "sdxl base",
}
"""Name -> layout of ``scripts.published``."""
TARGETS = ("executorch", "coreml", "coreai", "tensorrt", "qnn")
FLOAT = re.compile(r"keep_float = (\[.*?\])")
FORM = re.compile(r"--step-groups-as (\w+)")
Row = dict[str, Any]


CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["benchmarks.family_jobs"])


class Refused(Exception):
    """A job ended with an error; its text."""


def job(what: str, place: Path, **given: Any) -> Row:
    """What ``family_jobs.worked`` gives in a process of its own, which has begun with the libraries loaded; kept in ``place``.

    Raises Refused.
    """
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            with ProcessPoolExecutor(1, mp_context=CONTEXT) as pool:
                found = pool.submit(worked, what, given).result()
        except Exception as error:
            raise Refused(str(error) or type(error).__name__) from error
        part = place.with_suffix(".part")
        part.write_text(json.dumps(found))
        part.rename(place)
    row: Row = json.loads(place.read_text())
    return row


def worked(what: str, given: Row) -> Row:
    from benchmarks.family_jobs import worked as work  # torch and diffusers, in the other process only

    return work(what, given)


def cell(family: str, target: str, work: Path) -> Row:
    """One row of the table."""
    row: Row = {"family": family, "target": target}
    layout, form, kept = FAMILIES[family], "a16" if target == "qnn" else "a8", list[str]()
    more = Row()
    try:
        row["trajectory_error"] = job("model", work / "model.json", layout=layout, work=work)["error"]
        for attempt in ("", "-again"):
            out = work / f"{form}{'-kept' if kept else ''}"
            settings = {"layout": layout, "work": work, "npu": target == "qnn", "keep_float": kept}
            job("calibrate", out / "calibrate.json", out=out, **settings)
            try:
                exported = job("export", out / f"{target}{attempt}-export.json", out=out, target=target, **more)
                break
            except Refused as error:
                as_form, in_float = FORM.search(str(error)), FLOAT.search(str(error))
                if attempt or not (as_form or in_float):
                    raise
                more = {"step_groups_as": as_form.group(1)} if as_form else {}
                kept = json.loads(in_float.group(1)) if in_float and not as_form else []
        row |= {"keep_float": kept, **more, "export": exported}
        row["run"] = job("run", out / f"{target}-run.json", out=out, target=target)
        row["outcome"] = row["run"]["outcome"]
    except Refused as error:
        row |= {"outcome": "refused", "reason": str(error).splitlines()[-1]}
    return row


def measure(families: Sequence[str], targets: Sequence[str], folder: Path) -> Iterator[Row]:
    for family in families:
        for target in targets:
            yield cell(family, target, folder / family.lower().replace(" ", "-"))


def show(rows: Sequence[Row]) -> None:
    table = Table(
        "family", "target", "verdict", "PSNR to FP32", "to simulation", "integer products", "layers in float", "export", "run",
        "why",
    )  # fmt: skip
    for row in rows:
        made, ran = row.get("export"), row.get("run")
        figures = ["", ""] if ran is None else [f"{ran['psnr']:.1f}", f"{ran['psnr_simulation']:.1f}"]
        counts = ["", ""] if made is None else [str(made["integer_products"]), str(sum(made["float_layers"].values()))]
        costs = [
            "" if each is None else f"{each['cpu_seconds']:.0f} s, {each['peak_mb']:.0f} MB" for each in (made, ran)
        ]
        why = row.get("reason") or ", ".join([*(ran or {}).get("failed", ()), *(made or {}).get("float_layers", ())])
        table.add_row(row["family"], row["target"], row["outcome"], *figures, *counts, *costs, why)
    Console(width=200).print(table)
    errors = {row["family"]: row["trajectory_error"] for row in rows if "trajectory_error" in row}
    for family, error in errors.items():
        print(f"{family}: FP32 latents within {error:.1e} of diffusers' pipeline, every step")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=",".join(FAMILIES), help="names, or beginnings of them")
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--folder", type=Path, help="keep everything here")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    wanted = [name for name in FAMILIES if any(name.startswith(each) for each in given.families.split(","))]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        for row in recorded(measure(wanted, given.targets.split(","), given.folder or Path(temporary)), given.json):
            rows.append(row)
            print(json.dumps(row), flush=True)
    show(rows)
