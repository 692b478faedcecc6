"""The second reference model: small enough for the repository, without code in its files, and it draws what it is asked for."""

from __future__ import annotations

from pathlib import Path

import torch
from scripts.models.train_cifar import NULL_LABEL, build_network, sample_grid

from dq_toolchain.toolchain.disk.files import read_tensors
from dq_toolchain.toolchain.models.loading import load_model
from dq_toolchain.toolchain.verdict.features import ClassifierFeatures, extractor_for

MODEL = Path(__file__).parents[2] / "models" / "cifar10"
MOST_BYTES = 25_000_000
CLASSES = 10


def test_it_is_small_and_has_nothing_to_unpickle() -> None:
    files = [file for file in MODEL.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= MOST_BYTES
    assert {file.suffix for file in files} == {".safetensors", ".json", ".toml", ".png", ".md"}
    weights = read_tensors(MODEL / "unet" / "diffusion_pytorch_model.safetensors", "train it again")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}


def test_it_is_what_the_script_trains() -> None:
    unet, script = load_model(MODEL).network, build_network()
    assert {k: v.shape for k, v in unet.state_dict().items()} == {k: v.shape for k, v in script.state_dict().items()}


def test_samples_are_of_the_class_asked_for_more_often_than_by_chance() -> None:
    samples = sample_grid(load_model(MODEL).network, rows=4, steps=10)
    assert samples.isfinite().all()
    judge = extractor_for(samples, MODEL)
    assert isinstance(judge, ClassifierFeatures)
    asked = torch.arange(CLASSES).repeat(4)
    assert NULL_LABEL not in asked
    assert (judge.labels(samples) == asked).float().mean() > 3 / CLASSES
