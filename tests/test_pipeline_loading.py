"""What of a pipeline's folder is read: weights in shards and variants, the autoencoder; what is not supported is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dq_toolchain.toolchain.cli.entry import run_command
from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.models.decoder import load_decoder
from dq_toolchain.toolchain.models.loading import load_model
from tests.tiny_pipelines import save_sd


def test_latents_are_decoded_as_the_pipeline_does(tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    folder = save_sd(tmp_path / "sd")
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    vae = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None).vae
    with torch.no_grad():
        expected = vae.decode(latents / vae.config.scaling_factor).sample.clamp(-1, 1)
    torch.testing.assert_close(load_decoder(folder)(latents), expected)
    with pytest.raises(ModelError, match="its latents have 4 channels, the report's 3"):
        load_decoder(folder)(latents[:, :3])
    with pytest.raises(ModelError, match="no autoencoder"):
        load_decoder(folder / "unet")


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize("variant", [None, "fp16"])
def test_weights_sharded_and_in_variants_are_the_same_network(
    shards: bool, variant: str | None, tmp_path: Path
) -> None:
    folder = save_sd(tmp_path / "sd")
    plain = load_model(folder)
    for path in (folder / "unet").glob("*.safetensors"):
        path.unlink()
    network = plain.network.half() if variant else plain.network
    network.save_pretrained(folder / "unet", variant=variant, max_shard_size="100KB" if shards else "1GB")  # type: ignore[operator]
    assert (len(list((folder / "unet").glob("*.safetensors"))) > 1) is shards
    again = load_model(folder, variant)
    for name, tensor in again.network.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, network.state_dict()[name].float())
    bare = load_model(folder / "unet", variant, folder / "scheduler")
    assert bare.weight_hash == again.weight_hash
    if variant:
        with pytest.raises(ModelError, match="add --variant fp16"):
            load_model(folder)


def test_an_index_that_leads_elsewhere_or_lacks_a_file_is_refused(tmp_path: Path) -> None:
    folder = save_sd(tmp_path / "sd")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    names = list(load_file(weights))
    weights.unlink()
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    for content, message in (({"weight_map": dict.fromkeys(names, "../secret.safetensors")}, "files beside it"),
                             ({"weight_map": {}}, "files beside it"), ({}, "weight_map does not list"),
                             ({"weight_map": dict.fromkeys(names, "gone.safetensors")}, r"gone\.safetensors")):  # fmt: skip
        index.write_text(json.dumps(content))
        with pytest.raises(ModelError, match=message):
            load_model(folder)


@pytest.mark.parametrize(("change", "message"), [
    ({"_class_name": "ControlNetModel"}, "ControlNet steers another network"),
    ({"in_channels": 9}, "inpainting"), ({"_class_name": "LTXVideoTransformer3DModel"}, "other networks are not supported"),
])  # fmt: skip
def test_what_is_not_supported_is_refused_plainly(change: dict[str, Any], message: str, tmp_path: Path,
                                                  capfd: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    folder = save_sd(tmp_path / "sd", **({"in_channels": 9} if "in_channels" in change else {}))
    file = folder / "unet" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert run_command(["calibrate", "--model", str(folder), "--out", str(tmp_path / "out")]) == 2
    assert message in capfd.readouterr().err
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").glob("calibration*"))
