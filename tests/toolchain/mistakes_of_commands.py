"""What a user can get wrong with commands, output folders and files; `mistakes` has the rest, and says how to read this."""

from __future__ import annotations

import torch

from tests.toolchain.spoil import (
    LATENTS,
    REPORT,
    Prepare,
    calibrate,
    command,
    empty_folder,
    file_in_the_way,
    flags,
    half,
    with_bytes,
    with_json,
    with_recipe,
    without,
    without_folder,
)

STATES = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
CONFIG, SCHEDULER = "model/unet/config.json", "model/scheduler/scheduler_config.json"
CALIBRATION, BUNDLE = "dq-out/calibration/calibration.json", "dq-out/executorch/bundle.json"

MISTAKES_OF_COMMANDS: dict[str, tuple[Prepare, str]] = {
    # the command line
    "unknown flag": (flags("--colour", "red"), "--colour.*see `dq-toolchain calibrate --help`"),
    "unknown command": (command("toast"), "'toast'; see `dq-toolchain --help`"),
    "flag without value": (command("calibrate", "--steps"), "--steps"),
    "argument too many": (command("inspect", "a", "b"), "b.*--help"),
    "unknown target": (command("export", "--target", "toaster"), "one of .*executorch.*got 'toaster'"),
    "unknown form": (
        command("export", "--step-groups-as", "odd"),
        "--step-groups-as: got 'odd', input should be 'methods' or 'input'",
    ),
    "form by its old name": (
        command("export", "--form", "static"),
        "--form: is called --step-groups-as now; write --step-groups-as methods$",
    ),
    "old name of another target": (
        command("export", "--target", "coreml", "--runtime-scales"),
        "--runtime-scales: is called --step-groups-as now; write --step-groups-as input$",
    ),
    "old name in a recipe": (
        with_recipe("[tensorrt]\nmode = 'ratio'"),
        r"bad\.toml:2 \[tensorrt\] mode: is called step_groups_as now; write step_groups_as = \"input\"$",
    ),
    "no seeds to run": (command("run", "--seeds", "0"), "--seeds"),
    "steps that the bundle has not": (
        command("run", "--steps", "3"),
        "got 3 steps, guidance 1, the bundle holds 8 steps, guidance 1; choose of these",
    ),
    "guidance that the bundle has not": (
        command("run", "--guidance", "7"),
        "got 8 steps, guidance 7, the bundle holds",
    ),
    "steps that the artifact has not": (
        command("export", "--steps", "8,50"),
        "no FP32 rollouts of 8 steps, guidance 1 .* calibrate again with --more-steps",
    ),
    "steps twice": (command("export", "--steps", "8,8"), "--steps: got 8 twice, allowed is each once"),
    "steps that are text": (command("export", "--steps", "8,x"), "--steps: got 'x', input should be a valid integer"),
    "other steps that are the calibrated ones": (
        flags("--more-steps", "4"),
        "--more-steps: got 4, at which it is calibrated",
    ),
    "other guidance without guidance": (
        flags("--more-guidance", "2"),
        "--more-guidance: got 2, .*set --guidance above 1",
    ),
    "flag of another target": (
        command("export", "--target", "executorch", "--lut"),
        "--lut is for target 'coreai' or 'coreml', got target 'executorch'",
    ),
    "unsupported iOS": (
        command("export", "--target", "coreml", "--ios", "16"),
        "--ios: got 16, input should be 17, 18 or 26",
    ),
    "three chunks": (
        command("export", "--target", "coreml", "--chunks", "3"),
        "--chunks: got 3, input should be 1 or 2",
    ),
    "iOS 17 with functions": (
        command("export", "--target", "coreml", "--ios", "17"),
        "step groups need one each; add --step-groups-as input",
    ),
    "tables for 8 bits": (
        command("export", "--target", "coreml", "--lut"),
        "tables are for weights of 4 bits and fewer",
    ),
    "Core ML output below a file": (
        file_in_the_way("export", "--target", "coreml", "--calibration", "dq-out/calibration", "--out", "file/out"),
        "cannot write file/out.*--out",
    ),
    "precision of a target without": (
        command("export", "--precision", "fp16"),
        "--precision is for target 'coreai', 'coreml' or 'tensorrt', got target 'executorch'",
    ),
    "old name with a value that there never was": (
        command("export", "--target", "tensorrt", "--mode", "odd"),
        "--mode: is called --step-groups-as now; write --step-groups-as methods or --step-groups-as input$",
    ),
    "unknown JetPack": (
        command("export", "--target", "tensorrt", "--jetpack", "5"),
        "--jetpack: got 5, input should be 6 or 7",
    ),
    "artifact of another form": (
        command("export", "--target", "qnn"),
        r"bits must be 16 for form a16 .*; calibrate with --activation-bits 16 --outputs range --step-vectors$",
    ),
    "artifact without fitted outputs": (
        command("export", "--target", "qnn", "--form", "a8"),
        r"form a8 .* it has none; calibrate with --activation-bits 8 --outputs fitted --step-vectors$",
    ),
    "unknown chip": (
        command("export", "--target", "qnn", "--soc", "SM9999"),
        "--soc: got 'SM9999', .*takes SM8550, SM8650, SM8750, SM8850, comma-separated, each once; write such as SM8750",
    ),
    "form of another target": (
        command("export", "--target", "qnn", "--form", "static"),
        "--form: got 'static', input should be 'a16' or 'a8'",
    ),
    "TensorRT output below a file": (
        file_in_the_way("export", "--target", "tensorrt", "--calibration", "dq-out/calibration", "--out", "file/out"),
        "cannot write file/out.*--out",
    ),
    # output
    "output below a file": (file_in_the_way(*calibrate("--out", "file/out")), "cannot write file/out.*--out"),
    "output is a file": (
        file_in_the_way(*calibrate("--out", "file")),
        "cannot write file: file is a file, not a folder; .*--out",
    ),
    "page below a file": (
        file_in_the_way("validate", REPORT, "--html", "file/page.html"),
        "cannot write file/page.html: file is a file, not a folder",
    ),
    # export, run, validate, inspect
    "export without calibration": (
        without_folder("dq-out/calibration", "export"),
        r"dq-out/calibration/calibration\.json.*calibrate",
    ),
    "export of an edited artifact": (
        with_json(CALIBRATION, lambda d: d.update(guidance=9), "export"),
        r"calibration\.json was changed",
    ),
    "export of another version": (
        with_json(CALIBRATION, lambda d: d.update(schema_version=9), "export"),
        "schema_version 9 .*allowed 1",
    ),
    "export of truncated weights": (
        with_bytes("dq-out/calibration/weights.safetensors", half, "export"),
        r"weights\.safetensors was changed",
    ),
    "export without reference": (
        without("dq-out/calibration/reference.safetensors", "export"),
        r"reference\.safetensors is missing",
    ),
    "export of a report": (
        with_bytes(CALIBRATION, lambda _: b'{"schema": "dq-toolchain/report"}', "export"),
        "'dq-toolchain/report', allowed",
    ),
    "run without bundle": (without_folder("dq-out/executorch", "run"), r"dq-out/executorch/bundle\.json.*export"),
    "run of an edited bundle": (with_json(BUNDLE, lambda d: d.update(guidance=9), "run"), r"bundle\.json was changed"),
    "run of another version": (
        with_json(BUNDLE, lambda d: d.update(schema_version=9), "run"),
        "schema_version 9 .*allowed 1",
    ),
    "run of a program that was changed": (
        with_bytes("dq-out/executorch/model.bin", half, "run"),
        r"model\.bin was changed",
    ),
    "run of a bundle without program": (without("dq-out/executorch/model.bin", "run"), r"model\.bin is missing"),
    "report missing": (without(REPORT, "validate", REPORT), r"cannot read dq-out/executorch/report/report\.json"),
    "report is not JSON": (with_bytes(REPORT, half, "validate", REPORT), r"report\.json is not valid JSON"),
    "report of another kind": (
        with_json(REPORT, lambda d: d.update(schema="x"), "validate", REPORT),
        "got 'x', allowed",
    ),
    "report of another version": (
        with_json(REPORT, lambda d: d.update(schema_version=2), "validate", REPORT),
        "schema_version 2 .*allowed 1",
    ),
    "report without a field": (
        with_json(REPORT, lambda d: d.pop("step_ms"), "validate", REPORT),
        "'step_ms' is a required",
    ),
    "report with fewer steps": (
        with_json(REPORT, lambda d: d["step_ms"].pop(), "validate", REPORT),
        "step_ms has 7 entries",
    ),
    "report of another bundle": (
        with_json(REPORT, lambda d: d.update(bundle_sha256="0" * 64), "validate", REPORT),
        "another bundle",
    ),
    "latents that were changed": (
        with_bytes(LATENTS, lambda d: d[:-1] + b"!", "validate", REPORT),
        r"report\.safetensors was changed",
    ),
    "latents missing": (without(LATENTS, "validate", REPORT), r"report\.safetensors is missing"),
    "no report yet": (command("validate"), r"dq-out/executorch/report\.json"),
    "bundle of the report is gone": (without(BUNDLE, "validate", REPORT), r"bundle\.json"),
    "inspect of an empty folder": (empty_folder, r"empty holds neither calibration\.json nor bundle\.json"),
    "inspect of nothing": (command("inspect", "nowhere"), "nowhere holds neither"),
    "inspect of an edited artifact": (
        with_json(CALIBRATION, lambda d: d["sites"].pop(), "inspect"),
        r"calibration\.json was changed",
    ),
}
