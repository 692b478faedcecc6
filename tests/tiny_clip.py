"""A CLIP model with random weights and of a few kilobytes, saved by transformers itself."""

from __future__ import annotations

from pathlib import Path

import torch
from scripts.published.encoders import POOLED, text_config, tokenizer
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPVisionConfig

from tests.tiny_pipelines import WIDTH

SIDE = 16


def save_clip(folder: Path, seed: int = 0) -> CLIPModel:
    """The model, as it lies in the folder now."""
    torch.manual_seed(seed)
    sight = CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE,
        patch_size=4, projection_dim=POOLED,
    )  # fmt: skip
    model = CLIPModel(
        CLIPConfig(text_config=text_config(WIDTH).to_dict(), vision_config=sight.to_dict(), projection_dim=POOLED)
    )
    for parameter in model.parameters():  # as made, all pictures look alike to it
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.5)
    model.eval().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(
        folder
    )
    return model
