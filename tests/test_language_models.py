"""Prompts that a language model reads, in the pipelines whose encoder is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dq_toolchain.calibrate.data.conditioning import conditioning_bank, guidance_of
from dq_toolchain.toolchain.models.loading import load_model
from dq_toolchain.toolchain.models.objects import model_of_pipeline
from tests.test_pipelines import prompts, recipe
from tests.tiny_chat import save_chat
from tests.tiny_pipelines import PROMPTS


@torch.no_grad()
@pytest.mark.parametrize("name", ["klein", "z_image"])
def test_prompts_are_read_by_a_language_model(name: str, tmp_path: Path) -> None:
    """Klein's rows are as long as the pipeline's limit; Z-Image's as the longest prompt, with a mask of each one's own."""
    from diffusers import DiffusionPipeline

    folder, lines = save_chat(tmp_path / name, name), list[str]()
    pipeline = DiffusionPipeline.from_pretrained(folder, vae=None)
    settings = recipe(folder, tmp_path / "out", conditioning=prompts(tmp_path), sampler={"guidance": 4.0})
    model = load_model(folder)
    bank = conditioning_bank(model, settings, lines.append)
    states = bank.cond["encoder_hidden_states"]
    if name == "klein":
        assert bank.uncond == {}
        assert guidance_of(model.config, settings, lines.append) == 1.0
        assert lines[-1].startswith("guidance 4.0 has no effect: model_index.json says is_distilled")
        assert guidance_of(model_of_pipeline(pipeline, pipeline.scheduler.config).config, settings) == 1.0
        torch.testing.assert_close(states, pipeline.encode_prompt(list(PROMPTS))[0])
        return
    wanted, nothing = pipeline.encode_prompt(list(PROMPTS))
    mask = bank.cond["encoder_attention_mask"]
    assert states.shape[:2] == mask.shape == (3, max(map(len, wanted)))
    for row, own, each in zip(states, mask, wanted, strict=True):
        torch.testing.assert_close(row[: int(own.sum())], each)
    torch.testing.assert_close(
        bank.uncond["encoder_hidden_states"][0, : int(bank.uncond["encoder_attention_mask"].sum())], nothing[0]
    )
    (tmp_path / "prompts.txt").write_text("c" * 600 + "\n")
    alone: dict[str, dict[str, Any]] = {
        "conditioning": {"prompts": tmp_path / "prompts.txt"},
        "sampler": {"guidance": 1.0},
    }
    conditioning_bank(model, recipe(folder, tmp_path / "out", **alone), lines.append)
    assert lines[-1].startswith("prompt 'cccc")
