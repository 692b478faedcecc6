"""bundle.json: a bit-equal round trip, and one line for every way in which it can be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dq_toolchain.toolchain.disk.files import seal, sha256, write_tensors
from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.formats.bundle import JSON, Bundle, Operation, Port, bundle_hash
from dq_toolchain.toolchain.formats.bundle_checks import STEP_VECTORS
from dq_toolchain.toolchain.sampler.correction import Correction
from dq_toolchain.toolchain.sampler.probe import probe
from tests.tiny import scheduler
from tests.tiny_artifacts import tiny_artifact, tiny_reference


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Bundle, Path]:
    artifact, unet = tiny_artifact()
    tiny_reference(artifact, unet, seeds=1).save(tmp_path / "reference.safetensors")
    (tmp_path / "model.bin").write_bytes(b"program")
    names = ("model.bin", "reference.safetensors")
    site_row = {
        "site": "a:input",
        "kind": "conv2d",
        "activation_bits": 8,
        "weight_bits": 8,
        "scheme": "symmetric",
        "range": [[-1.28, 1.27]] * 2,
        "scale": [0.01] * 2,
        "zero_point": [0] * 2,
    }
    bundle = Bundle(
        "somewhere",
        "static",
        "tiny",
        "0" * 64,
        {"torch": "2"},
        "model.bin",
        (
            Port("sample", "float32", (1, 1, 8, 8)),
            Port("timestep", "float32", (1,)),
            Port("class_labels", "int64", (1,)),
        ),
        (Port("output", "float32", (1, 1, 8, 8)),),
        ((0, 1), (2, 3)),
        ("a", "b"),
        probe(scheduler(), 4),
        1.0,
        {"fidelity": {"error": [1.0], "simulation_psnr": [9.0]}, "conformance": {}},
        (Operation("Conv2d", "delegate", "int8 x int8 -> int32", 3, ""),),
        (site_row,),
        {"model.bin": 7},
        {name: sha256(tmp_path / name) for name in names},
    )
    bundle.save(tmp_path)
    return bundle, tmp_path


def test_round_trip_is_equal(saved: tuple[Bundle, Path]) -> None:
    bundle, folder = saved
    assert Bundle.load(folder) == bundle
    assert [bundle.method_of_step(k) for k in range(4)] == ["a", "a", "b", "b"]
    assert bundle.group_of_step == (0, 0, 1, 1)
    assert bundle.reference(folder).seeds == 1
    assert bundle_hash(folder) == sha256(folder / JSON)


def test_a_correction_of_the_outputs_channels_comes_back(saved: tuple[Bundle, Path]) -> None:
    bundle, folder = saved
    corrected = replace(bundle, table=replace(bundle.table, correction=Correction.identity(4, 1)))
    corrected.save(folder)
    assert Bundle.load(folder) == corrected


def _edited(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads((folder / JSON).read_text())
    edit(data)
    (folder / JSON).write_text(json.dumps(seal(data)))


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (lambda d: d.update(schema="other"), "is not a dq-toolchain/bundle file"),
        (lambda d: d.update(schema_version=2), "schema_version 2 is not supported"),
        (lambda d: d.pop("methods"), "is damaged"),
        (lambda d: d.update(table={}), "is damaged"),
        (lambda d: d.update(inputs=[{"name": "x"}]), "is damaged"),
        (lambda d: d.update(guidance="much"), "is damaged"),
        (lambda d: d.update(step_groups=[[0, 2], [1, 3]]), "step groups must cover steps 0-3 in order"),
        (lambda d: d.update(methods=["a", "b", "c"]), "has 3 methods for 2 step groups"),
        (
            lambda d: d["table"].update(correction=Correction.identity(4, 3).to_json()),
            "the correction has 3 channels, the output must",
        ),
        (
            lambda d: (d["table"].update(correction=Correction.identity(4, 1).to_json()), d.update(outputs=[])),
            "outputs",
        ),
        (
            lambda d: d["table"].update(correction=Correction.identity(3, 1).to_json()),
            "correction has 3 rows for 4 timesteps",
        ),
        (lambda d: d["table"].update(correction=None), "is damaged: table.correction: None is not of type"),
        (
            lambda d: (d["files"].pop("model.bin"), d["files"].update({"other.bin": "0" * 64})),
            "lists no file 'model.bin'",
        ),
        (lambda d: d["files"].update({"model.bin": "0" * 64}), "model.bin was changed after it was written"),
        (lambda d: d["files"].update({"other.bin": "0" * 64}), "other.bin is missing"),
    ],
)
def test_wrong_bundles_are_refused(
    saved: tuple[Bundle, Path], edit: Callable[[dict[str, Any]], object], text: str
) -> None:
    _edited(saved[1], edit)
    with pytest.raises(ArtifactError, match=text) as caught:
        Bundle.load(saved[1])
    assert "\n" not in str(caught.value)


def test_an_edit_is_seen_whatever_it_changes(saved: tuple[Bundle, Path]) -> None:
    path = saved[1] / JSON
    path.write_text(path.read_text().replace('"guidance": 1.0', '"guidance": 3.6'))
    with pytest.raises(ArtifactError, match="was changed after it was written"):
        Bundle.load(saved[1])
    path.write_text("{")
    with pytest.raises(ArtifactError, match="is not valid JSON"):
        Bundle.load(saved[1])
    path.unlink()
    with pytest.raises(ArtifactError, match="cannot read"):
        Bundle.load(saved[1])


def test_step_vectors_stand_in_the_place_of_the_timestep(saved: tuple[Bundle, Path]) -> None:
    bundle, folder = saved
    rows = torch.arange(20.0).reshape(4, 5)
    write_tensors(folder / STEP_VECTORS, {"step_vectors": rows})
    sample, timestep, labels = bundle.inputs
    vectors = Port("step_vectors", "float32", (1, 5))
    files = {**bundle.files, STEP_VECTORS: sha256(folder / STEP_VECTORS)}
    taken = replace(bundle, inputs=(sample, vectors, labels), files=files)
    taken.save(folder)
    found = Bundle.load(folder).step_vectors(folder)
    assert found is not None
    assert torch.equal(found, rows)
    assert bundle.step_vectors(folder) is None
    for inputs, listed, fault in (
        ((sample, timestep, vectors, labels), files, r"in the place of timestep"),
        ((sample, labels), files, r"inputs must list timestep"),
        ((sample, vectors, labels), bundle.files, r"lists no file 'step_vectors.safetensors'"),
    ):
        replace(bundle, inputs=inputs, files=listed).save(folder)
        with pytest.raises(ArtifactError, match=fault):
            Bundle.load(folder)
