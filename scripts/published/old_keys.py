"""Weights as diffusers before 0.17 saved them."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file

OLD = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}


def with_old_attention_keys(folder: Path) -> None:
    """Renames the attention layers of the saved network."""
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    renamed = {}
    for key, tensor in load_file(file).items():
        for new, old in OLD.items():
            key = key.replace(new, old)
        renamed[key] = tensor.clone()
    assert any(".proj_attn." in key for key in renamed)
    save_file(renamed, file, {"format": "pt"})
