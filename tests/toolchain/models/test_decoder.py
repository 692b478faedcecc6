"""Latents become pictures as the pipelines of diffusers make them; a decoder that cannot be read is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, VQModel

from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.models.decoder import find_decoder, load_decoder
from dq_toolchain.toolchain.models.hub_part import wanted_of
from tests.tiny_pipelines import vae

LATENTS = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def saved(model: Any, folder: Path, **options: Any) -> Path:
    torch.manual_seed(0)
    model.save_pretrained(folder, **options)
    return folder


@torch.no_grad()
def test_mean_and_deviation_as_sdxl_has_them_and_shift_as_sd3(tmp_path: Path) -> None:
    model: AutoencoderKL = vae().eval()
    mean, deviation = [0.5, -1.0, 2.0, 0.0], [1.0, 2.0, 0.5, 3.0]
    model.register_to_config(latents_mean=mean, latents_std=deviation, scaling_factor=0.5)
    rows = torch.tensor([mean, deviation]).view(2, 1, 4, 1, 1)
    expected = model.decode(LATENTS * rows[1] / 0.5 + rows[0]).sample.clamp(-1, 1)
    torch.testing.assert_close(load_decoder(saved(model, tmp_path / "a"))(LATENTS), expected)
    model.register_to_config(latents_mean=None, shift_factor=0.25)
    expected = model.decode(LATENTS / 0.5 + 0.25).sample.clamp(-1, 1)
    torch.testing.assert_close(load_decoder(saved(model, tmp_path / "b"))(LATENTS), expected)


@torch.no_grad()
@pytest.mark.parametrize("kind", [VQModel, AutoencoderTiny])
def test_other_autoencoders_decode_as_their_pipelines_do(kind: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "latent_channels": 4,
        "block_out_channels": (8,),
        "norm_num_groups": 4,
        "num_vq_embeddings": 16,
    }
    tiny = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8), "num_encoder_blocks": (1, 1),
            "num_decoder_blocks": (1, 1)}  # fmt: skip
    model = kind(**(options if kind is VQModel else tiny)).eval()
    expected = model.decode(LATENTS / model.config.scaling_factor).sample.clamp(-1, 1)
    saved(model, tmp_path / "vqvae")
    decode = find_decoder(tmp_path, 4)
    assert decode is not None
    torch.testing.assert_close(decode(LATENTS), expected)


def test_the_variant_that_is_there_is_taken(tmp_path: Path) -> None:
    model = vae().half().float()
    plain, half = (
        saved(model, tmp_path / "plain"),
        saved(model, tmp_path / "half" / "vae", variant="fp16", max_shard_size="10KB"),
    )
    assert len(list(half.glob("*.safetensors"))) > 1
    torch.testing.assert_close(load_decoder(half.parent)(LATENTS), load_decoder(plain)(LATENTS))


def test_what_cannot_decode_is_refused(tmp_path: Path) -> None:
    folder = saved(vae(), tmp_path / "vae")
    assert find_decoder(tmp_path / "elsewhere", 4) is None
    with pytest.raises(ModelError, match="takes latents with 4 channels, the model's have 3"):
        find_decoder(tmp_path, 3)
    config = json.loads((folder / "config.json").read_text())
    for change, message in (({"_class_name": "AutoencoderOobleck"}, "no autoencoder"), ({"_class_name": ["a"]}, "no autoencoder"),
                            ({"latents_mean": [1.0], "latents_std": [1.0]}, "latents_mean has 1 numbers for 4 channels"),
                            ({"scaling_factor": 0}, "not a valid AutoencoderKL config")):  # fmt: skip
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ModelError, match=message):
            load_decoder(tmp_path)
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        find_decoder(tmp_path, 4)
    (tmp_path / "file.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="no autoencoder"):
        load_decoder(tmp_path / "file.safetensors")


def test_of_a_model_on_the_hub_only_the_autoencoder_is_wanted() -> None:
    stem = "diffusion_pytorch_model"
    there = ["model_index.json", "unet/config.json", f"unet/{stem}.safetensors", "vae/config.json"]
    half, plain = f"vae/{stem}.fp16.safetensors", f"vae/{stem}.safetensors"
    assert wanted_of([*there, half], ["vae"]) == ["vae/config.json", half]
    assert wanted_of([*there, half, plain], ["vae"]) == ["vae/config.json", plain]
    assert wanted_of(there, ["vae"]) == []
    assert wanted_of(["config.json", f"{stem}.safetensors"], ["vae"]) == ["config.json", f"{stem}.safetensors"]
