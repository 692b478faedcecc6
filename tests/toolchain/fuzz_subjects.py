"""The files that the fuzz damages, and the commands that read them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dq_toolchain.toolchain.disk.files import seal, sha256
from tests.toolchain.spoil import QUICK

CALIBRATION, BUNDLE = Path("dq-out/calibration"), Path("dq-out/executorch")
REPORT = BUNDLE
RECIPE = """
[model]
lora_scale = 1.0
[sampler]
steps = 4
guidance = 2.0
[quantize]
weight_bits = 4
keep_float = ["conv_in", "mid_block.*"]
step_groups = 2
[calibrate]
method = "accuquant"
samples = 8
ranges = "mse"
[conditioning]
null_label = 10
[reference]
seeds = 2
"""


@dataclass(frozen=True)
class Subject:
    """A file that is damaged, and the command lines that then read it. ``repair``: makes hashes and seals good again."""

    file: Path
    commands: tuple[tuple[str, ...], ...]
    repair: Callable[[Path], None] = lambda box: None


def _rehash(folder: Path, name: str, json_name: str, sealed: bool) -> None:
    path = folder / json_name
    data = json.loads(path.read_text())
    data["files"][name] = sha256(folder / name)
    if name in data.get("sizes", {}):
        data["sizes"][name] = (folder / name).stat().st_size
    path.write_text(json.dumps(seal(data) if sealed else data))


def _report_of(box: Path) -> None:
    """The report names the bundle as it is now."""
    path = box / REPORT / "report.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "bundle_sha256": sha256(box / BUNDLE / "bundle.json")}))


def _bundle(box: Path) -> None:
    """Sealed again as text: what is odd about its numbers stays."""
    path = box / BUNDLE / "bundle.json"
    _seal_text(path)
    _report_of(box)


def _seal_text(path: Path) -> None:
    text = path.read_text("utf-8", "surrogateescape")
    try:
        digest = seal(json.loads(text))["content_sha256"]
        old = json.loads(text).get("content_sha256")
    except (ValueError, TypeError, AttributeError, RecursionError):
        return
    if isinstance(old, str) and len(old) == 64:
        path.write_text(text.replace(old, digest), "utf-8", "surrogateescape")


def _tensors_of_bundle(box: Path) -> None:
    _rehash(box / BUNDLE, "reference.safetensors", "bundle.json", sealed=True)
    _report_of(box)


def _tensors_of_artifact(name: str) -> Callable[[Path], None]:
    return lambda box: _rehash(box / CALIBRATION, name, "calibration.json", sealed=True)


def _model(name: str) -> Subject:
    return Subject(Path("model") / name, (("calibrate", "--model", "model", *QUICK, "--out", "new"),))


READ_BUNDLE = (
    ("doctor", str(BUNDLE)),
    ("doctor", str(BUNDLE), "--json"),
    ("inspect", str(BUNDLE)),
    ("validate", str(REPORT)),
)
SUBJECTS = (
    Subject(BUNDLE / "bundle.json", READ_BUNDLE, _bundle),
    Subject(BUNDLE / "bundle.json", READ_BUNDLE, _bundle),
    Subject(
        BUNDLE / "reference.safetensors",
        (*READ_BUNDLE, ("run", "--bundle", str(BUNDLE), "--report", "new")),
        _tensors_of_bundle,
    ),
    Subject(
        REPORT / "report.json",
        (
            ("validate", str(REPORT)),
            ("validate", str(REPORT), "--json"),
            ("validate", str(REPORT), str(REPORT)),
            ("doctor", str(BUNDLE)),
        ),
    ),
    Subject(
        REPORT / "report.safetensors",
        (("validate", str(REPORT)),),
        lambda box: _rehash(box / REPORT, "report.safetensors", "report.json", sealed=False),
    ),
    Subject(
        CALIBRATION / "calibration.json",
        (("inspect",), ("inspect", "--json")),
        lambda box: _seal_text(box / CALIBRATION / "calibration.json"),
    ),
    *(
        Subject(CALIBRATION / f"{name}.safetensors", (("inspect",),), _tensors_of_artifact(f"{name}.safetensors"))
        for name in ("weights", "activations", "float")
    ),
    Subject(
        Path("recipe.toml"),
        (
            ("calibrate", "--recipe", "recipe.toml", "--model", "nowhere", "--out", "new"),
            ("calibrate", "-r", "recipe.toml", "--model", "model", "--out", "new"),
        ),
    ),
    _model("unet/config.json"),
    _model("scheduler/scheduler_config.json"),
    _model("dq.toml"),
    Subject(BUNDLE / "bundle.json", READ_BUNDLE, _bundle),
    Subject(REPORT / "report.json", (("validate", str(REPORT)),)),
)

REPAIRED = (BUNDLE / "bundle.json", REPORT / "report.json", CALIBRATION / "calibration.json")
