"""Loads a diffusers UNet and its scheduler from a local folder, and rebuilds a UNet from its config.

The folder has diffusers' own layout (``unet/``, ``scheduler/``); the embedded digits model is such a folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.files import sha256

EMBEDDED = Path(__file__).parent / "digits"
ARCHITECTURES = ("UNet2DModel", "UNet2DConditionModel")
REFUSALS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What diffusers and torch raise on building or calling a UNet whose config or input does not make sense."""


@dataclass(frozen=True)
class Model:
    """An FP32 UNet in eval mode with everything needed to name it again."""

    id: str
    weight_hash: str
    config: dict[str, Any]
    scheduler_config: dict[str, Any]
    unet: nn.Module
    folder: Path


def build_unet(config: Mapping[str, Any], where: str = "unet/config.json") -> nn.Module:
    """A UNet with random weights from a diffusers config, eval mode, gradients off.

    Args:
        where: file that the config came from, for the error.

    Raises:
        ModelError: ``_class_name`` is not one of ARCHITECTURES, or diffusers rejects the config.
    """
    name = config.get("_class_name")
    if name not in ARCHITECTURES:
        raise ModelError(f"{where}: _class_name is {name!r}, allowed are {' and '.join(ARCHITECTURES)}; "
                         "other networks are not supported")
    try:
        unet: nn.Module = getattr(diffusers, name).from_config(dict(config))
    except REFUSALS as error:
        raise ModelError(f"{where} is not a valid {name} config: {' '.join(str(error).split())}; correct it") from error
    return unet.eval().requires_grad_(False)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}; --model takes a diffusers folder with unet/ and "
                         "scheduler/") from error
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON: {error}; restore the file that diffusers saved") from error
    if not isinstance(data, dict):
        raise ModelError(f"{path} holds a {type(data).__name__}, expected a JSON object; restore the file that "
                         "diffusers saved")
    return data


def load_model(folder: Path | None = None) -> Model:
    """Load an FP32 model; None loads the embedded digits model.

    Args:
        folder: has ``unet/config.json``, ``unet/diffusion_pytorch_model.safetensors`` and
            ``scheduler/scheduler_config.json``. Weights in bf16 or fp16 are widened to float32.
    Raises:
        ModelError: something is missing, damaged, or of an unsupported kind; the text names the file.
    """
    folder = EMBEDDED if folder is None else folder
    config = _read_config(folder / "unet" / "config.json")
    scheduler_config = _read_config(folder / "scheduler" / "scheduler_config.json")
    unet = build_unet(config, str(folder / "unet" / "config.json"))
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    try:
        state = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot read {weights}: {' '.join(str(error).split())}; only safetensors are read, save the model "
                         "with save_pretrained(safe_serialization=True)") from error
    expected = unet.state_dict()
    wrong = sorted(set(state) ^ set(expected)) or sorted(n for n in state if state[n].shape != expected[n].shape)
    if wrong:
        raise ModelError(f"{weights} does not fit unet/config.json: {len(wrong)} tensors are missing, unknown or of another shape, "
                         f"first {wrong[0]!r}; take both from one model")
    unet.load_state_dict({name: tensor.to(torch.float32) for name, tensor in state.items()})
    bad = [name for name, tensor in unet.state_dict().items() if not torch.isfinite(tensor).all()]
    if bad:
        raise ModelError(f"{weights}: {bad[0]!r} holds NaN or infinity, allowed are finite weights; take another checkpoint")
    identity = "digits (embedded)" if folder == EMBEDDED else folder.resolve().name
    return Model(identity, sha256(weights), config, scheduler_config, unet, folder)
