"""The one list of damaged bundles: what the host and every program on a device must refuse, and what only the host sees.

Each entry spoils a copy of a golden bundle and makes hashes and seal good again, so that the check behind them is reached.
``runtime_samples/golden/damaged-bundles/CASE/NAME`` and ``.../damaged-for-the-host/CASE/NAME`` hold the files that change,
to be laid over ``golden/CASE/bundle``.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from dq_toolchain.toolchain.formats.bundle import RANGES
from dq_toolchain.toolchain.formats.reference import FILE
from scripts.golden.damage import Damage, drop, of_json, put, ranges, reference, text
from scripts.golden.damaged_extras import CORRECTIONS, NOISES, STEP_ROWS

FOR_ALL, FOR_THE_HOST = "damaged-bundles", "damaged-for-the-host"
GUIDED, NOISE, CORRECTED, VECTORS = "ddim-guided", "ddim-noise", "ddim-corrected", "step-vectors"


def _moved(data: dict[str, Any], old: str, new: str) -> None:
    data["files"][new] = data["files"].pop(old)


SHAPE = ("inputs", 0, "shape")
HASH = "0" * 64

TABLE: dict[str, Damage] = {
    "table-missing": drop("table"),
    "table-is-text": put("table", to="x"),
    "table-is-null": put("table", to=None),
    "timesteps-are-none": put("table", "timesteps", to=[]),
    "timesteps-are-a-number": put("table", "timesteps", to=5),
    "timesteps-are-null": put("table", "timesteps", 1, to=None),
    "timesteps-are-one-too-many": put("table", "timesteps", to=[5.0, 4.0, 3.0, 2.0, 1.0, 0.0]),
    "row-too-many": of_json(lambda d: d["table"]["a"].append([1.0])),
    "row-missing": of_json(lambda d: d["table"]["b"].pop()),
    "row-is-empty": put("table", "a", 2, to=[]),
    "row-is-longer": put("table", "b", 4, to=[0.5, 0.5]),
    "row-is-a-number": put("table", "a", 2, to=1.0),
    "row-reaches-before-the-start": put("table", "a", to=[[1.0, 1.0]] * 5),
    "coefficient-beyond-float32": put("table", "c", 0, to=1e300),
    "coefficient-is-text": put("table", "b", 1, to=["1.0"]),
    "coefficient-is-a-boolean": put("table", "input_scale", 1, to=True),
    "coefficient-is-a-list": put("table", "input_scale", 1, to=[1.0]),
    "coefficient-beyond-float64": text('"c": [0.0', '"c": [1e999'),
    "coefficient-is-nan": text('"c": [0.0', '"c": [NaN'),
}  # fmt: skip

STEPS: dict[str, Damage] = {
    "step-twice": put("step_groups", to=[[0, 1], [1, 2, 3, 4]]),
    "step-missing": put("step_groups", to=[[0, 1], [2, 3]]),
    "step-too-many": put("step_groups", to=[[0, 1], [2, 3, 4, 5]]),
    "steps-out-of-order": put("step_groups", to=[[1, 0], [2, 3, 4]]),
    "groups-out-of-order": put("step_groups", to=[[2, 3, 4], [0, 1]]),
    "group-is-empty": put("step_groups", to=[[0, 1], [2, 3, 4], []]),
    "groups-are-none": put("step_groups", to=[]),
    "groups-are-a-number": put("step_groups", to=5),
    "step-is-negative": put("step_groups", to=[[-1, 0, 1], [2, 3, 4]]),
    "step-is-a-fraction": put("step_groups", to=[[0, 0.5, 1], [2, 3, 4]]),
    "step-is-text": put("step_groups", to=[["0", 1], [2, 3, 4]]),
    "step-is-a-boolean": put("step_groups", to=[[False, True], [2, 3, 4]]),
    "step-is-huge": put("step_groups", to=[[0, 1], [2, 3, 2**62]]),
    "step-beyond-float64": text("[2, 3, 4]", "[2, 3, 1e999]"),
    "step-beyond-64-bits": text("[2, 3, 4]", "[2, 3, " + "9" * 30 + "]"),
    "methods-are-three": put("methods", to=["a", "b", "c"]),
    "methods-are-none": put("methods", to=[]),
    "methods-are-text": put("methods", to="forward"),
    "method-is-a-path": put("methods", to=["../forward"]),
    "method-is-empty": put("methods", to=[""]),
    "method-is-a-number": put("methods", to=[7]),
    "method-has-an-escape": put("methods", to=["\x1b[31mforward"]),
}  # fmt: skip

PORTS: dict[str, Damage] = {
    "inputs-are-none": put("inputs", to=[]),
    "inputs-are-text": put("inputs", to="sample"),
    "sample-missing": drop("inputs", 0),
    "timestep-missing": drop("inputs", 1),
    "sample-twice": of_json(lambda d: d["inputs"].append(d["inputs"][0])),
    "labels-twice": of_json(lambda d: d["inputs"].append(d["inputs"][2])),
    "batch-of-two": put(*SHAPE, 0, to=2),
    "shape-is-empty": put("inputs", 2, "shape", to=[]),
    "shape-with-zero": put("inputs", 2, "shape", to=[1, 0]),
    "shape-negative": put("inputs", 2, "shape", to=[1, -1]),
    "shape-huge": put("inputs", 2, "shape", to=[1, 2**62, 8]),
    "shape-overflows": put("inputs", 2, "shape", to=[1, 2**31 - 1, 2**31 - 1]),
    "shape-beyond-memory": of_json(
        lambda d: [row.update(shape=[1, 4096, 4096, 4096]) for row in (d["inputs"][0], d["outputs"][0])]),
    "shape-is-text": put(*SHAPE, to="1166"),
    "shape-of-text": put(*SHAPE, to=["1", "1", "6", "6"]),
    "shape-of-fractions": put(*SHAPE, to=[1, 1, 6.5, 6]),
    "shape-of-booleans": put(*SHAPE, to=[True, True, 6, 6]),
    "shape-beyond-float64": text('"shape": [1, 1, 6, 6]', '"shape": [1, 1, 1e999, 6]'),
    "sample-of-another-shape": put(*SHAPE, to=[1, 1, 6, 7]),
    "latents-of-another-shape": of_json(lambda d: [row.update(shape=[1, 1, 6, 7]) for row in (d["inputs"][0], d["outputs"][0])]),
    "sample-of-three-axes": of_json(lambda d: [row.update(shape=[1, 6, 6]) for row in (d["inputs"][0], d["outputs"][0])]),
    "sample-of-integers": put("inputs", 0, "dtype", to="int64"),
    "timestep-of-integers": put("inputs", 1, "dtype", to="int64"),
    "timesteps-of-two": put("inputs", 1, "shape", to=[1, 2]),
    "dtype-int8": put("inputs", 2, "dtype", to="int8"),
    "dtype-float16": put("inputs", 0, "dtype", to="float16"),
    "dtype-is-null": put("inputs", 2, "dtype", to=None),
    "name-is-a-number": put("inputs", 2, "name", to=7),
    "name-missing": drop("inputs", 2, "name"),
    "labels-of-another-name": put("inputs", 2, "name", to="labels"),
    "labels-in-float": put("inputs", 2, "dtype", to="float32"),
    "labels-of-another-shape": put("inputs", 2, "shape", to=[1, 2]),
    "ranges-of-another-width": put("inputs", 3, "shape", to=[1, 5]),
    "ranges-of-one-axis": put("inputs", 3, "shape", to=[1]),
    "ranges-of-integers": put("inputs", 3, "dtype", to="int64"),
    "outputs-are-none": put("outputs", to=[]),
    "outputs-are-two": of_json(lambda d: d["outputs"].append(d["outputs"][0])),
    "output-of-another-shape": put("outputs", 0, "shape", to=[1, 2, 6, 6]),
    "output-of-integers": put("outputs", 0, "dtype", to="int64"),
}  # fmt: skip

FILES: dict[str, Damage] = {
    "schema-of-a-report": put("schema", to="dq-toolchain/report"),
    "version-2": put("schema_version", to=2),
    "version-is-text": put("schema_version", to="1"),
    "version-is-a-boolean": put("schema_version", to=True),
    "target-is-a-number": put("target", to=7),
    "guidance-missing": drop("guidance"),
    "guidance-is-text": put("guidance", to="2"),
    "guidance-is-null": put("guidance", to=None),
    "guidance-is-a-boolean": put("guidance", to=True),
    "guidance-beyond-a-million": put("guidance", to=1e7),
    "guidance-beyond-float32": put("guidance", to=-1e300),
    "guidance-beyond-float64": text('"guidance": 2.5', '"guidance": 1e999'),
    "guidance-is-nan": text('"guidance": 2.5', '"guidance": NaN'),
    "guidance-twice": text('"guidance": 2.5', '"guidance": 2.5, "guidance": 1.0'),
    "program-outside": put("program", to="../model.bin"),
    "program-absolute": put("program", to="/etc/hostname"),
    "program-outside-though-listed": of_json(lambda d: (d.update(program="../x"), d["files"].update({"../x": HASH}))),
    "program-not-listed": put("program", to="other.bin"),
    "program-is-a-number": put("program", to=7),
    "program-is-empty": put("program", to=""),
    "files-missing": drop("files"),
    "files-are-a-list": put("files", to=[]),
    "file-outside": put("files", "../bundle.json", to=HASH),
    "file-absolute": put("files", "/etc/hostname", to=HASH),
    "file-with-a-dot": of_json(lambda d: _moved(d, "ranges.safetensors", "./ranges.safetensors")),
    "file-with-an-empty-part": of_json(lambda d: _moved(d, "model.bin", "/model.bin")),
    "file-with-a-backslash": put("files", "..\\x", to=HASH),
    "file-with-a-drive": put("files", "C:x", to=HASH),
    "file-of-two-lines": put("files", "a\nb", to=HASH),
    "file-missing": put("files", "none.bin", to=HASH),
    "file-is-the-folder": put("files", ".", to=HASH),
    "hash-of-another-file": put("files", "model.bin", to=HASH),
    "hash-is-null": put("files", "model.bin", to=None),
    "reference-not-listed": drop("files", FILE),
    "ranges-not-listed": drop("files", RANGES),
}  # fmt: skip

TENSORS: dict[str, Damage] = {
    "start-missing": reference(lambda t: t.pop("start")),
    "start-of-three-axes": reference(lambda t: t.update(start=t["start"][:, 0])),
    "start-without-seeds": reference(lambda t: t.update(start=t["start"][:0])),
    "start-in-float64": reference(lambda t: t.update(start=t["start"].double())),
    "start-of-integers": reference(lambda t: t.update(start=t["start"].long())),
    "start-is-complex": reference(lambda t: t.update(start=t["start"].to(torch.complex64))),
    "start-with-nan": reference(lambda t: t["start"].view(-1)[0:1].fill_(torch.nan)),
    "fp32-latents-with-infinity": reference(lambda t: t["fp32_latents"].view(-1)[5:6].fill_(torch.inf)),
    "simulation-latents-with-nan": reference(lambda t: t["simulation_latents"].view(-1)[-1:].fill_(torch.nan)),
    "fp32-latents-a-step-short": reference(lambda t: t.update(fp32_latents=t["fp32_latents"][1:])),
    "fp32-latents-missing": reference(lambda t: t.pop("fp32_latents")),
    "simulation-latents-a-seed-short": reference(lambda t: t.update(simulation_latents=t["simulation_latents"][:, 1:])),
    "labels-missing": reference(lambda t: t.pop("cond.class_labels")),
    "labels-a-seed-short": reference(lambda t: t.update({"cond.class_labels": t["cond.class_labels"][1:]})),
    "labels-in-int32": reference(lambda t: t.update({"cond.class_labels": t["cond.class_labels"].int()})),
    "unconditional-missing": reference(lambda t: t.pop("uncond.class_labels")),
    "unconditional-in-float": reference(lambda t: t.update({"uncond.class_labels": t["uncond.class_labels"].float()})),
    "ranges-missing": ranges(lambda t: t.update(other=t.pop("ranges"))),
    "ranges-a-group-short": ranges(lambda t: t.update(ranges=t["ranges"][1:])),
    "ranges-in-int32": ranges(lambda t: t.update(ranges=t["ranges"].int())),
    "ranges-of-shape-nothing": ranges(lambda t: t.update(ranges=torch.tensor(1.0))),
    "ranges-with-nan": ranges(lambda t: t["ranges"].view(-1)[0:1].fill_(torch.nan)),
    "ranges-with-infinity": ranges(lambda t: t["ranges"].view(-1)[0:1].fill_(-torch.inf)),
}  # fmt: skip

SITE = {"site": "a:input", "kind": "conv2d", "activation_bits": 8, "weight_bits": 8, "scheme": "symmetric",
        "range": [[-1.28, 1.27]] * 2, "scale": [0.01] * 2, "zero_point": [0] * 2}  # fmt: skip


def _site(**changes: Any) -> Damage:
    return put("sites", to=[{**SITE, **changes}])


HOST: dict[str, Damage] = {
    "target-is-a-path": put("target", to="../evil"),
    "target-has-an-escape": put("target", to="\x1b]0;x\x07"),
    "unknown-key": put("run", to={"out": "/"}),
    "unknown-key-of-the-table": put("table", "d", to=[]),
    "weight-hash-is-text": put("weight_hash", to="x"),
    "versions-are-a-list": put("versions", to=[]),
    "model-id-is-a-lone-surrogate": text('"model_id": "made-up"', '"model_id": "\\ud800"'),
    "prediction-type-unknown": put("table", "prediction_type", to="nope"),
    "sigma-of-zero": put("table", "init_noise_sigma", to=0),
    "limits-missing": drop("limits"),
    "limits-are-null": put("limits", to=None),
    "limits-are-a-list": put("limits", to=[]),
    "limits-without-fidelity": drop("limits", "fidelity"),
    "limits-of-another-run": put("limits", "fidelity", "error", to=[1.0]),
    "limits-are-wide": of_json(lambda d: d["limits"]["fidelity"].update(error=[1e30] * 5)),
    "limit-is-text": put("limits", "fidelity", "psnr_loss", to="1"),
    "limit-is-negative": put("limits", "conformance", "ratio_step", to=-1),
    "limit-beyond-64-bits": text('"psnr_loss": 1.0', '"psnr_loss": ' + "9" * 400),
    "sizes-are-text": put("sizes", "model.bin", to="8"),
    "sizes-are-another": put("sizes", "model.bin", to=9),
    "sizes-are-negative": put("sizes", "model.bin", to=-1),
    "sizes-beyond-64-bits": text('"model.bin": 8', '"model.bin": 1' + "0" * 30),
    "sizes-of-another-file": put("sizes", "other.bin", to=9),
    "operations-are-text": put("operations", to=["convolution"]),
    "operations-of-negative-count": put("operations", to=[{"name": "a", "where": "", "arithmetic": "", "count": -1, "why": ""}]),
    "site-is-a-number": put("sites", to=[7]),
    "site-without-range": of_json(lambda d: d.update(sites=[{k: v for k, v in SITE.items() if k != "range"}])),
    "site-with-a-range-of-nothing": _site(range=[[], []]),
    "site-with-a-range-of-text": _site(range=[["a", "b"]] * 2),
    "site-with-a-huge-range": _site(range=[[-1e30, 1e30]] * 2),
    "site-with-one-group": _site(range=[[-1.28, 1.27]]),
    "site-with-a-scale-of-zero": _site(scale=[0.0] * 2, range=[[0.0, 0.0]] * 2),
    "site-of-nine-bits": _site(activation_bits=9),
    "outputs-of-the-simulation-missing": reference(lambda t: t.pop("simulation_outputs")),
    "outputs-of-the-simulation-with-nan": reference(lambda t: t["simulation_outputs"].view(-1)[0:1].fill_(torch.nan)),
    "outputs-of-fp32-a-seed-short": reference(
        lambda t: t.update(fp32_outputs_at_simulation=t["fp32_outputs_at_simulation"][:, 1:])),
    "tensor-that-is-unknown": reference(lambda t: t.update(other=torch.zeros(1))),
}  # fmt: skip

DAMAGED: dict[str, dict[str, dict[str, Damage]]] = {
    FOR_ALL: {
        GUIDED: {**TABLE, **STEPS, **PORTS, **FILES, **TENSORS}, CORRECTED: CORRECTIONS, NOISE: NOISES,
        VECTORS: STEP_ROWS,
    },
    FOR_THE_HOST: {GUIDED: HOST},
}  # fmt: skip


def write_damaged_bundles(golden: Path, out: Path | None = None) -> None:
    """Write the folders of damaged bundles into ``out``, by default beside the golden ones."""
    for kind, cases in DAMAGED.items():
        shutil.rmtree((out or golden) / kind, ignore_errors=True)
        for case, damages in cases.items():
            for name, damage in damages.items():
                _write(golden / case / "bundle", damage, (out or golden) / kind / case / name)


def _write(good: Path, damage: Damage, folder: Path) -> None:
    """Only what differs stays in ``folder``."""
    shutil.copytree(good, folder)
    damage(folder)
    for path in folder.iterdir():
        if path.read_bytes() == (good / path.name).read_bytes():
            path.unlink()
