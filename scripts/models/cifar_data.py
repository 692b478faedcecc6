"""Load CIFAR-10 as float images and labels from an .npz of JPEG bytes. Used by the training scripts only."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def load_cifar(npz: Path, split: str) -> tuple[Tensor, Tensor]:
    """Images and labels of one split.

    Args:
        npz: arrays ``{split}_jpeg`` (uint8, all files one after another), ``{split}_offsets`` (N + 1) and
            ``{split}_labels`` (N).
        split: "train" or "test".
    Returns:
        (N, 3, 32, 32) float32 in [-1, 1] and (N,) int64.
    """
    with np.load(npz, allow_pickle=False) as data:
        raw, offsets, labels = (data[f"{split}_{part}"] for part in ("jpeg", "offsets", "labels"))
    images = [
        np.asarray(Image.open(io.BytesIO(raw[begin:end].tobytes())).convert("RGB"))
        for begin, end in itertools.pairwise(offsets)
    ]
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pixels, torch.from_numpy(labels.astype(np.int64))
