"""Load MNIST as float images and labels, from an .npz or from the public files. Used by the training scripts only."""

from __future__ import annotations

import gzip
import urllib.request
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}


def _download(split: str) -> tuple[np.ndarray, np.ndarray]:
    raw = []
    for name in FILES[split]:
        with urllib.request.urlopen(MIRROR + name, timeout=60) as reply:
            raw.append(gzip.decompress(reply.read()))
    images = np.frombuffer(raw[0], np.uint8, offset=16).reshape(-1, 28, 28)
    return images, np.frombuffer(raw[1], np.uint8, offset=8)


def load_digits(npz: Path | None, split: str) -> tuple[Tensor, Tensor]:
    """Images and labels of one split.

    Args:
        npz: file with arrays ``train``, ``train_y``, ``test``, ``test_y`` (uint8, N x 28 x 28); None downloads MNIST.
        split: "train" or "test".
    Returns:
        (N, 1, 28, 28) float32 in [-1, 1] and (N,) int64.
    """
    if npz is None:
        images, labels = _download(split)
    else:
        with np.load(npz, allow_pickle=False) as data:
            images, labels = data[split], data[f"{split}_y"]
    pixels = torch.from_numpy(images.astype(np.float32)).unsqueeze(1) / 127.5 - 1
    return pixels, torch.from_numpy(labels.astype(np.int64))
