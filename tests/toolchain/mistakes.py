"""What a user can get wrong: each entry spoils a copy of good input, and says what the error must contain."""

from __future__ import annotations

import torch

from tests.toolchain.spoil import (
    LATENTS,
    REPORT,
    WEIGHTS,
    Prepare,
    calibrate,
    command,
    empty_folder,
    file_in_the_way,
    flags,
    half,
    with_bytes,
    with_conditioning,
    with_disguised_pickle,
    with_json,
    with_pickle,
    with_recipe,
    with_tensors,
    without,
    without_folder,
    without_null_label,
)

STATES = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
CONFIG, SCHEDULER = "model/unet/config.json", "model/scheduler/scheduler_config.json"
CALIBRATION, BUNDLE = "dq-out/calibration/calibration.json", "dq-out/executorch/bundle.json"

MISTAKES: dict[str, tuple[Prepare, str]] = {
    # the model
    "missing model folder": (
        flags("--model", "nowhere"),
        r"nowhere/unet/config\.json.*--model takes a diffusers folder",
    ),
    "model is a file": (file_in_the_way("calibrate", "--model", "file"), "file is a file; --model takes the folder"),
    "missing config": (without(CONFIG), r"cannot read model/unet/config\.json"),
    "config is not JSON": (with_bytes(CONFIG, half), r"model/unet/config\.json is not valid JSON"),
    "config is a list": (with_bytes(CONFIG, lambda _: b"[]"), r"config\.json holds a list"),
    "unknown network": (
        with_json(CONFIG, lambda d: d.update(_class_name="Transformer")),
        "'Transformer', allowed are UNet2DModel, ",
    ),
    "config that diffusers refuses": (
        with_json(CONFIG, lambda d: d.update(norm_num_groups=7)),
        r"config\.json is not a valid UNet2DModel",
    ),
    "config that fails when called": (
        with_json(CONFIG, lambda d: d.update(freq_shift="a")),
        r"cannot be called.*model/unet/config\.json",
    ),
    "sample size that does not halve": (
        with_json(CONFIG, lambda d: d.update(sample_size=7)),
        r"model/unet/config\.json: sample_size is \[7, 7\]: latents of 7x7 are no multiple of",
    ),
    "no sample size": (with_json(CONFIG, lambda d: d.update(sample_size=None)), "sample_size is None, allowed"),
    "class embedding that is no table": (
        with_json(CONFIG, lambda d: d.update(class_embed_type="timestep")),
        r"config\.json: class_embed_type is 'timestep', which is not supported",
    ),
    "missing weights": (without(str(WEIGHTS)), r"diffusion_pytorch_model\.safetensors.*only safetensors are read"),
    "truncated weights": (
        with_bytes(str(WEIGHTS), half),
        r"cannot read model/unet/diffusion_pytorch_model\.safetensors",
    ),
    "weights of another model": (
        with_tensors(lambda t: t.pop("conv_in.bias")),
        "'conv_in.bias'; take both from one model",
    ),
    "weights of another shape": (
        with_json(CONFIG, lambda d: d.update(block_out_channels=[32, 32])),
        r"does not fit unet/config\.json",
    ),
    "NaN in the weights": (
        with_tensors(lambda t: t["conv_out.weight"].fill_(float("nan"))),
        r"'conv_out\.weight' holds NaN",
    ),
    "pickle instead of safetensors": (with_pickle, "only safetensors are read"),
    "pickle named safetensors": (with_disguised_pickle, r"cannot read model/unet/diffusion_pytorch_model\.safetensors"),
    # the scheduler
    "missing scheduler": (without(SCHEDULER), r"cannot read model/scheduler/scheduler_config\.json"),
    "unknown scheduler": (
        with_json(SCHEDULER, lambda d: d.update(_class_name="MyScheduler")),
        "_class_name must be .*DDIMScheduler.*got 'MyScheduler'",
    ),
    "scheduler without a name": (
        with_json(SCHEDULER, lambda d: d.pop("_class_name")),
        "_class_name must be .*got None",
    ),
    "scheduler that clips": (
        with_json(SCHEDULER, lambda d: d.update(clip_sample=True)),
        "DDIMScheduler is not linear.*clip_sample=True",
    ),
    "option of the wrong kind": (with_json(SCHEDULER, lambda d: d.update(beta_schedule="odd")), "DDIMScheduler.*odd"),
    "zero training steps": (
        with_json(SCHEDULER, lambda d: d.update(num_train_timesteps=0)),
        "DDIMScheduler|num_train_timesteps",
    ),
    # the settings
    "no steps": (flags("--steps", "0"), "--steps: got 0, input should be greater"),
    "too many steps": (flags("--steps", "1001"), "--steps: got 1001"),
    "steps are text": (flags("--steps", "many"), "--steps: got 'many', input should be a valid integer"),
    "guidance is text": (flags("--guidance=much"), "--guidance: got 'much', input should be a valid number"),
    "more steps than trained": (
        with_json(SCHEDULER, lambda d: d.update(num_train_timesteps=3)),
        "steps must be an integer in 1-3 .*got 4",
    ),
    "no step groups": (flags("--step-groups", "0"), "--step-groups: got 0"),
    "more step groups than steps": (flags("--step-groups", "5"), "step groups must be 1-4 .*got 5"),
    "weight bits 1": (flags("--weight-bits", "1"), "--weight-bits: got 1, input should be greater than or equal to 2"),
    "weight bits 9": (flags("--weight-bits", "9"), "--weight-bits: got 9, input should be less than or equal to 8"),
    "activation bits 1": (flags("--activation-bits", "1"), "--activation-bits: got 1"),
    "activation bits 9": (flags("--activation-bits", "9"), "--activation-bits: got 9"),
    "unknown scheme": (flags("--scheme", "odd"), "--scheme: got 'odd', input should be 'symmetric' or 'affine'"),
    "unknown gradient": (
        flags("--gradient", "odd"),
        "--gradient: got 'odd', input should be 'adjoint', 'surrogate' or 'full'",
    ),
    "unknown rounding": (flags("--rounding", "odd"), "--rounding: got 'odd', input should be 'learned' or 'nearest'"),
    "unknown ranges": (
        flags("--ranges", "odd"),
        "--ranges: got 'odd', input should be 'mse', 'minmax' or 'percentile'",
    ),
    "one sample": (flags("--samples", "1"), "--samples: got 1"),
    "negative seed": (flags("--seed", "-1"), "--seed: got -1"),
    "no guidance scale": (flags("--guidance", "nan"), "--guidance: got nan"),
    "several flags at once": (flags("--steps", "0", "--scheme", "odd"), "--steps: got 0.*--scheme: got 'odd'"),
    "no GPU": (flags("--device", "cuda"), "--device: got cuda, .*allowed here: auto, cpu"),
    "unknown device": (flags("--device", "tpu"), "--device: got 'tpu'"),
    # conditioning
    "guidance without a null label": (without_null_label, "guidance needs .*null_label"),
    "null label out of range": (with_recipe("[conditioning]\nnull_label = 11"), "null_label: got 11, allowed 0-10"),
    "missing conditioning file": (flags("--conditioning", "nowhere.safetensors"), r"cannot read nowhere\.safetensors"),
    "conditioning is no safetensors": (flags("--conditioning", "model/dq.toml"), r"cannot read model/dq\.toml"),
    "text model without text": (flags("--model", "text-model"), r"needs encoder_hidden_states.*--conditioning"),
    "unknown tensor": (
        with_conditioning({"prompt": STATES}),
        r"text\.safetensors: got tensor 'prompt', allowed are cond\.NAME",
    ),
    "keyword the UNet lacks": (
        with_conditioning({"cond.encoder_hidden_states": STATES}, model="model"),
        "NAME class_labels",
    ),
    "states of another width": (
        with_conditioning({"cond.encoder_hidden_states": STATES[..., :4].contiguous()}),
        r"\(P, T, 8\)",
    ),
    "states without rows": (with_conditioning({"cond.encoder_hidden_states": STATES[:0]}), "P at least 1"),
    "NaN in the states": (with_conditioning({"cond.encoder_hidden_states": STATES * float("nan")}), "finite"),
    "prompts of two lengths": (
        with_conditioning(
            {"cond.encoder_hidden_states": STATES, "uncond.encoder_hidden_states": STATES[:, :3].contiguous()},
            "--guidance",
            "2",
        ),
        "pad them to one length",
    ),
    "guidance without uncond": (
        with_conditioning({"cond.encoder_hidden_states": STATES}, "--guidance", "2"),
        r"needs uncond\.encoder",
    ),
    "labels out of range": (
        with_conditioning({"cond.class_labels": torch.tensor([3, 11])}, model="model"),
        "values 3 to 11, allowed is integer labels 0-10",
    ),
    "labels in float": (
        with_conditioning({"cond.class_labels": torch.tensor([3.0])}, model="model"),
        "integer labels 0-10",
    ),
    # the recipe
    "missing recipe": (flags("--recipe", "nowhere.toml"), r"cannot read nowhere\.toml"),
    "recipe is not TOML": (with_recipe("[sampler"), r"bad\.toml is not valid TOML"),
    "recipe is not text": (with_recipe(b"\xff\xfe\x00"), r"bad\.toml: it is not UTF-8 text"),
    "unknown key": (
        with_recipe("[quantize]\ncolour = 1"),
        r"bad\.toml:2 \[quantize\] colour: unknown, allowed: weight_bits",
    ),
    "unknown section": (
        with_recipe("[quantise]\nweight_bits = 4"),
        r"bad\.toml:1 \[quantise\]: unknown, allowed: model",
    ),
    "value of another type": (with_recipe("[calibrate]\nbatch = '16'"), r"bad\.toml:2 \[calibrate\] batch: got '16'"),
    "several mistakes in the recipe": (
        with_recipe("[calibrate]\nbatch = 0\n[run]\nspeed = 1"),
        r"bad\.toml:2 .*; bad\.toml:4 .*",
    ),
    "mistake in the model's own recipe": (
        with_bytes("model/dq.toml", lambda _: b"[conditioning]\nnull = 1"),
        r"model/dq\.toml:2",
    ),
    # the command line
    "unknown flag": (flags("--colour", "red"), "--colour.*see `dq-toolchain calibrate --help`"),
    "unknown command": (command("toast"), "'toast'; see `dq-toolchain --help`"),
    "flag without value": (command("calibrate", "--steps"), "--steps"),
    "argument too many": (command("inspect", "a", "b"), "b.*--help"),
    "unknown target": (command("export", "--target", "toaster"), "one of .*executorch.*got 'toaster'"),
    "unknown form": (
        command("export", "--step-groups", "odd"),
        "--step-groups: got 'odd', input should be 'methods' or 'input'",
    ),
    "form by its old name": (
        command("export", "--form", "static"),
        "--form: is called --step-groups now; write --step-groups methods$",
    ),
    "old name of another target": (
        command("export", "--target", "coreml", "--runtime-scales"),
        "--runtime-scales: is called --step-groups now; write --step-groups input$",
    ),
    "old name in a recipe": (
        with_recipe("[tensorrt]\nmode = 'ratio'"),
        r"bad\.toml:2 \[tensorrt\] mode: is called step_groups now; write step_groups = \"input\"$",
    ),
    "no seeds to run": (command("run", "--seeds", "0"), "--seeds"),
    "flag of another target": (
        command("export", "--target", "executorch", "--lut"),
        "--lut is for target 'coreml', got target 'executorch'",
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
        "step groups need one each; add --step-groups input",
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
        "--precision is for target 'coreml' or 'tensorrt', got target 'executorch'",
    ),
    "old name with a value that there never was": (
        command("export", "--target", "tensorrt", "--mode", "odd"),
        "--mode: is called --step-groups now; write --step-groups methods or --step-groups input$",
    ),
    "unknown JetPack": (
        command("export", "--target", "tensorrt", "--jetpack", "5"),
        "--jetpack: got 5, input should be 6 or 7",
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
