"""A calibration with its weights on disk writes the artifact of one with them in memory, byte for byte."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dq_toolchain.calibrate.prepare import setup as module
from dq_toolchain.calibrate.run import calibrate
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.disk import spill
from dq_toolchain.toolchain.errors import ToolchainError
from dq_toolchain.toolchain.formats.artifact import Artifact
from tests.calibrate.conftest import tiny_recipe
from tests.pages import file_of

NAME = "diffusion_pytorch_model"
SHORT = {"samples": 4, "warmup": 1, "iterations": 1, "settling": 1, "group_iterations": 1}
CLOSED = {"method": "accuquant", "rounding": "closed-form", **SHORT}
LEARNED = {"method": "accuquant", "rounding": "learned", **SHORT}


def in_shards(source: Path, folder: Path, dtype: torch.dtype) -> Path:
    """The model with weights of another type, in two files."""
    shutil.copytree(source, folder)
    whole = folder / "unet" / f"{NAME}.safetensors"
    state = {name: tensor.to(dtype) for name, tensor in load_file(whole).items()}
    whole.unlink()
    names = sorted(state)
    places: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"{NAME}-{number:05}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, folder / "unet" / file)
        places |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": places}
    (folder / "unet" / f"{NAME}.safetensors.index.json").write_text(json.dumps(index))
    return folder


def made(model: Path, out: Path, calibrate_: dict[str, object]) -> tuple[dict[str, bytes], Artifact]:
    """The files of the artifact, and what is in memory."""
    recipe = tiny_recipe(
        model, out, run={"offload": True}, sampler={"steps": 2}, calibrate=calibrate_, quantize={"step_groups": 1},
        blocks={"rows": 8, "batch": 4, "iterations": 2, "activation_iterations": 1},
    )  # fmt: skip
    folder, artifact, _ = calibrate(recipe, Reporter(quiet=True))
    return {path.name: path.read_bytes() for path in folder.iterdir()}, artifact


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("dtype", "settings"),
    [
        (torch.bfloat16, CLOSED),
        (torch.bfloat16, LEARNED),
        (torch.float16, {"method": "mse"}),
        (torch.float32, {"method": "mse"}),
    ],
)
def test_the_artifact_is_the_same_byte_for_byte(
    dtype: torch.dtype, settings: dict[str, object], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "SMALLEST", 16)
    model = in_shards(tiny_model, tmp_path / "model", dtype)
    kept: list[torch.dtype] = []
    keep = spill.Spill.keep

    def counted(self: spill.Spill, tensor: torch.Tensor, *others: object) -> torch.Tensor:
        kept.append(tensor.dtype)
        return keep(self, tensor, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(spill.Spill, "keep", counted)
    on_disk, artifact = made(model, tmp_path / "out", settings)
    assert dtype in kept  # of float32 the parts of split convolutions
    assert torch.int8 in kept
    for layer in artifact.layers.values():
        assert (file_of(layer.weight_q) is not None) == (layer.weight_q.numel() >= 16)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["calibration"]
    (tmp_path / "out").rename(tmp_path / "first")
    monkeypatch.setattr(module, "Spill", lambda _folder: None)
    in_memory, artifact = made(model, tmp_path / "out", settings)
    assert all(file_of(layer.weight_q) is None for layer in artifact.layers.values())
    assert on_disk == in_memory


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_all_weights_of_the_network_are_in_files_also_those_that_were_split(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "SMALLEST", 1)
    model = in_shards(tiny_model, tmp_path / "model", torch.bfloat16)
    context = module.setup(tiny_recipe(model, tmp_path / "out", run={"offload": True}))
    assert context.prepared.splits
    assert all(file_of(parameter) is not None for parameter in context.network.parameters())
    plain = module.setup(tiny_recipe(model, tmp_path / "out"))
    assert all(file_of(parameter) is None for parameter in plain.network.parameters())
    assert not any(plain.model.in_pages.values())
    state = plain.network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in context.network.state_dict().items())


def test_a_disk_without_room_is_refused_before_anything_is_written(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = in_shards(tiny_model, tmp_path / "model", torch.float16)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: type("Usage", (), {"free": 1000}))
    with pytest.raises(ToolchainError, match=r"weights cannot be put on disk in .*out: .* GB are needed"):
        made(model, tmp_path / "out", {"method": "mse"})
    assert not (tmp_path / "out").exists()
    module.setup(tiny_recipe(tiny_model, tmp_path / "out", run={"offload": True}))  # float32 needs no room
