"""What a user can get wrong: each entry spoils a copy of good input, and says what the error must contain."""

from __future__ import annotations

import torch

from tests.toolchain.mistakes_of_commands import MISTAKES_OF_COMMANDS
from tests.toolchain.spoil import (
    WEIGHTS,
    Prepare,
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
    "activation bits 9": (
        flags("--activation-bits", "9"),
        "--activation-bits: got 9, value error, no device has integers",
    ),
    "activation bits 17": (flags("--activation-bits", "17"), "--activation-bits: got 17, input should be 2, 3"),
    "16 bits, affine": (flags("--activation-bits", "16", "--scheme", "affine"), "activations of 16 bits are symmetric"),
    "unknown scheme": (flags("--scheme", "odd"), "--scheme: got 'odd', input should be 'symmetric' or 'affine'"),
    "unknown gradient": (
        flags("--gradient", "odd"),
        "--gradient: got 'odd', input should be 'adjoint', 'surrogate' or 'full'",
    ),
    "unknown rounding": (
        flags("--rounding", "odd"),
        r"--rounding: got 'odd', input should be 'closed-form\+learned', 'closed-form', 'learned' or 'nearest'",
    ),
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
    "no GPU for TF32": (flags("--precision", "tf32"), "--precision: got tf32, .*CPU; allowed here: exact, bf16"),
    "unknown precision": (
        flags("--precision", "fp16"),
        "--precision: got 'fp16', input should be 'exact', 'tf32' or 'bf16'",
    ),
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
    **MISTAKES_OF_COMMANDS,
}
