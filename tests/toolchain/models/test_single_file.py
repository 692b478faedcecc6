"""A file given as a model: never asked of the hub, and told how to become a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.models.source import find_model
from tests.tiny import write_tiny_model

LDM = "model.diffusion_model.input_blocks."
XL = "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            {f"{LDM}0.0.weight": (4, 4, 3, 3)},
            r"single-file checkpoint; .*import StableDiffusionPipeline as P; P\.from_single_file\('models/photo\.safet",
        ),
        ({f"{LDM}0.0.weight": (4, 4, 3, 3), XL: (4,)}, "import StableDiffusionXLPipeline as P"),
        ({f"{LDM}0.0.weight": (4, 9, 3, 3)}, r"another kind \(inpainting\), which is not supported"),
        ({"x": (1,)}, r"another kind \(unknown\)"),
        ({"lora_unet_down_blocks_0.lora_down.weight": (1, 1)}, "holds adapters .LoRA., no network; .*--lora"),
        ({"down_blocks.0.resnets.0.conv1.weight": (1, 1)}, "a network without its config"),
    ],
)
def test_a_checkpoint_is_told_how_to_become_a_folder(
    tensors: dict[str, tuple[int, ...]], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("models").mkdir()
    save_file({name: torch.zeros(shape) for name, shape in tensors.items()}, "models/photo.safetensors")
    with pytest.raises(ModelError, match=message) as caught:
        find_model("models/photo.safetensors")
    assert str(caught.value).startswith("models/photo.safetensors ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.ckpt", "is a pickle, which is never read"),
        ("a.bin", "is a pickle"),
        ("a.PT", "is a pickle"),
        ("a.gguf", "quantized already"),
        ("a.onnx", "exported graph"),
        ("notes.txt", "is a file; --model takes the folder"),
        ("a.safetensors", "incomplete, 4 bytes"),
    ],
)
def test_other_files_are_named_for_what_they_are(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("owner").mkdir()
    (Path("owner") / name).write_bytes(b"data")
    with pytest.raises(ModelError, match=rf"owner/{name}.*{message}"):
        find_model(f"owner/{name}")


@pytest.mark.parametrize(
    "name", ["owner/a.safetensors", "owner/a.ckpt", "../owner", "./owner/x", "~/owner", "/nowhere/owner"]
)
def test_a_path_that_is_not_there_is_never_asked_of_the_hub(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"cannot read .*: no such (file|folder); --model takes"):
        find_model(name)


def test_a_file_of_a_folder_gives_the_folder(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model")
    with pytest.raises(
        ModelError, match=rf"one file of a diffusers folder; give the folder: --model {folder / 'unet'}$"
    ):
        find_model(folder / "unet" / "diffusion_pytorch_model.safetensors")
    (folder / "model_index.json").write_text("{}")
    with pytest.raises(ModelError, match=rf"--model {folder}$"):
        find_model(folder / "unet" / "diffusion_pytorch_model.safetensors")
