"""Frechet distance against its closed forms; the shipped classifier reads the digits it is given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from dq_toolchain.toolchain.classifier import FILE, DigitClassifier, load_classifier
from dq_toolchain.toolchain.errors import ModelError, ToolchainError
from dq_toolchain.toolchain.features import (
    INCEPTION_FILE,
    DigitFeatures,
    InceptionFeatures,
    accuracy,
    class_agreement,
    extractor_for,
    frechet_distance,
)
from dq_toolchain.toolchain.files import write_tensors


def draw(count: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def whitened(count: int, width: int) -> torch.Tensor:
    """Features whose mean is exactly 0 and covariance exactly the identity."""
    x = draw(count, width, 0)
    x = x - x.mean(0)
    white: torch.Tensor = x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (count - 1)).T)
    return white


def test_frechet_distance_has_its_closed_form() -> None:
    x = whitened(200, 5)
    scale, shift = torch.tensor([1.0, 2, 3, 0.5, 0.1], dtype=torch.float64), torch.arange(5.0, dtype=torch.float64)
    expected = float(((scale - 1) ** 2).sum() + (shift**2).sum())  # (standard deviations apart)^2 + (means apart)^2
    assert frechet_distance(x, x * scale + shift) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_agrees_with_the_matrix_square_root() -> None:
    a, b = draw(300, 6, 1) @ draw(6, 6, 2), draw(200, 6, 3) + 1
    first, second = (torch.cov(x.T) for x in (a, b))
    root = torch.linalg.eigvals(first @ second).real.clamp_min(0).sqrt().sum()
    expected = float((a.mean(0) - b.mean(0)).square().sum() + first.trace() + second.trace() - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_is_symmetric_zero_on_itself_and_holds_with_few_samples() -> None:
    a, b = draw(8, 64, 1), draw(9, 64, 2)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)
    assert frechet_distance(a, b) > 1
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_refuses_what_it_cannot_use() -> None:
    with pytest.raises(ToolchainError, match="at least 2"):
        frechet_distance(draw(1, 4, 0), draw(5, 4, 0))
    with pytest.raises(ToolchainError, match="NaN"):
        frechet_distance(draw(5, 4, 0) * float("nan"), draw(5, 4, 0))


def test_the_shipped_classifier_is_small_and_states_its_accuracy() -> None:
    assert FILE.stat().st_size <= 400_000
    with safe_open(str(FILE), framework="pt") as file:
        stated = json.loads(file.metadata()["test_accuracy"])
    assert stated >= 0.985
    assert json.loads(FILE.with_suffix(".json").read_text())["test_accuracy"] == stated


def stroke(columns: slice, rows: slice) -> torch.Tensor:
    image = torch.full((1, 1, 28, 28), -1.0)
    image[:, :, rows, columns] = 1
    return image


def test_the_shipped_classifier_reads_drawn_digits() -> None:
    one = stroke(slice(13, 16), slice(5, 23))
    seven = torch.maximum(stroke(slice(8, 20), slice(6, 8)), stroke(slice(17, 20), slice(6, 23)))
    ring = torch.maximum(stroke(slice(8, 20), slice(5, 23)), torch.tensor(-1.0))
    ring[:, :, 8:20, 11:17] = -1
    images = torch.cat([one, seven, ring])
    extractor = extractor_for(images)
    assert accuracy(extractor, images, torch.tensor([1, 7, 0])) == 1
    assert extractor.features(images).shape == (3, 64)
    assert torch.equal(extractor.features(images * 3), extractor.features((images * 3).clamp(-1, 1)))


def test_batches_do_not_change_the_features(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    extractor = DigitFeatures()
    whole = extractor.features(images)
    monkeypatch.setattr("dq_toolchain.toolchain.features.BATCH", 2)
    torch.testing.assert_close(extractor.features(images), whole, rtol=1e-5, atol=1e-6)


def test_agreement_is_a_share() -> None:
    assert class_agreement(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 3, 9])) == 0.75


def test_other_pictures_and_missing_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="1x28x28"):
        DigitFeatures().labels(torch.zeros(2, 3, 32, 32))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ToolchainError, match=INCEPTION_FILE):
        InceptionFeatures()


def test_a_damaged_classifier_file_is_refused(tmp_path: Path) -> None:
    bad = tmp_path / "classifier.safetensors"
    bad.write_bytes(FILE.read_bytes()[:-10])
    with pytest.raises(ModelError, match="cannot read"):
        load_classifier(bad)
    write_tensors(bad, {"head.weight": torch.zeros(10, 64)})
    with pytest.raises(ModelError, match="not the digit classifier"):
        load_classifier(bad)


def test_a_classifier_has_under_95_000_parameters() -> None:
    assert sum(p.numel() for p in DigitClassifier().parameters()) < 95_000
