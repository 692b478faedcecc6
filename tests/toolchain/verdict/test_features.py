"""Frechet distance against its closed forms; classifiers say what they are; the shipped one reads drawn digits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from dq_toolchain.toolchain.disk.files import read_tensors_and_metadata, write_tensors
from dq_toolchain.toolchain.errors import ModelError, ToolchainError
from dq_toolchain.toolchain.models.classifier import FILE, KEY, NAME, Architecture, Classifier, load_classifier
from dq_toolchain.toolchain.verdict.features import (
    INCEPTION_FILE,
    ClassifierFeatures,
    InceptionFeatures,
    accuracy,
    class_agreement,
    extractor_for,
    frechet_distance,
)


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
    extractor = ClassifierFeatures()
    whole = extractor.features(images)
    monkeypatch.setattr("dq_toolchain.toolchain.verdict.features.BATCH", 2)
    torch.testing.assert_close(extractor.features(images), whole, rtol=1e-5, atol=1e-6)


def test_agreement_is_a_share() -> None:
    assert class_agreement(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 3, 9])) == 0.75


def test_other_pictures_and_missing_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="1x28x28"):
        ClassifierFeatures().labels(torch.zeros(2, 3, 32, 32))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ToolchainError, match=INCEPTION_FILE):
        InceptionFeatures()


COLOUR = Architecture(name="tiny classifier", channels=3, size=8, widths=(4, 6), strides=(1, 2), classes=5)


def write_classifier(
    folder: Path, architecture: str = COLOUR.model_dump_json(), dtype: torch.dtype = torch.float16
) -> Path:
    torch.manual_seed(0)
    weights = {name: tensor.to(dtype) for name, tensor in Classifier(COLOUR).weights().items()}
    write_tensors(folder / NAME, weights, {KEY: architecture})
    return folder / NAME


def test_a_classifier_beside_the_model_judges_images_of_its_shape(tmp_path: Path) -> None:
    path = write_classifier(tmp_path)
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    extractor = extractor_for(images, tmp_path)
    assert extractor.name == "tiny classifier, 6 features"
    assert extractor.features(images).shape == (3, 6)
    assert extractor.features(images).dtype == torch.float32
    assert torch.equal(extractor.labels(images), load_classifier(path)(images).argmax(1))


def test_a_classifier_of_another_shape_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_classifier(tmp_path)
    digits = torch.zeros(2, 1, 28, 28)
    for folder in (tmp_path, tmp_path / "none", None):
        assert extractor_for(digits, folder).name == "digit classifier, 64 features"
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ToolchainError, match=INCEPTION_FILE):
        extractor_for(torch.zeros(2, 3, 32, 32), tmp_path)


def test_a_saved_classifier_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    for path in (write_classifier(tmp_path, dtype=torch.float32), FILE):
        stored, metadata = read_tensors_and_metadata(path, "")
        loaded = load_classifier(path)
        assert loaded.architecture == Architecture.model_validate_json(metadata[KEY])
        assert all(torch.equal(stored[name], tensor) for name, tensor in loaded.weights().items())
        assert not loaded.training


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("", "architecture"),
        ("[]", "architecture"),
        (COLOUR.model_copy(update={"strides": (1,)}).model_dump_json(), "2 widths and 1 strides"),
        (COLOUR.model_copy(update={"strides": (1, 0)}).model_dump_json(), "strides 1 or 2"),
        (COLOUR.model_copy(update={"classes": 1}).model_dump_json(), "classes"),
        (COLOUR.model_copy(update={"widths": (4, 7)}).model_dump_json(), "not the classifier of its metadata"),
        (COLOUR.model_copy(update={"widths": (10**9, 6)}).model_dump_json(), "widths are 1-4096"),
    ],
)
def test_an_architecture_that_does_not_fit_is_refused_in_one_line(
    tmp_path: Path, architecture: str, message: str
) -> None:
    path = write_classifier(tmp_path, architecture)
    with pytest.raises(ModelError, match=message) as caught:
        load_classifier(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_damaged_classifier_file_is_refused(tmp_path: Path) -> None:
    bad = tmp_path / NAME
    bad.write_bytes(FILE.read_bytes()[:-10])
    with pytest.raises(ModelError, match="cannot read"):
        load_classifier(bad)
    tensors, metadata = read_tensors_and_metadata(FILE, "")
    write_tensors(bad, tensors)
    with pytest.raises(ModelError, match="metadata 'architecture'"):
        load_classifier(bad)
    write_tensors(bad, {"head.weight": torch.zeros(10, 64)}, metadata)
    with pytest.raises(ModelError, match="not the classifier of its metadata"):
        load_classifier(bad)
    write_tensors(bad, tensors | {"head.bias": torch.full((10,), torch.nan)}, metadata)
    with pytest.raises(ModelError, match=r"head\.bias"):
        load_classifier(bad)


def test_the_shipped_classifier_has_under_95_000_parameters() -> None:
    assert sum(p.numel() for p in load_classifier().parameters()) < 95_000
