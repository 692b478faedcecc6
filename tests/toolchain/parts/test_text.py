"""Our text encoders are transformers' functions, with their weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from dq_toolchain.toolchain.parts import clip, t5
from dq_toolchain.toolchain.parts.part import architecture, filled
from tests.tiny_parts import lively

LENGTH, PAD, END = 10, 39, 38


def clip_config(act: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, hidden_act=act,
        max_position_embeddings=LENGTH, projection_dim=12, bos_token_id=37, eos_token_id=END, pad_token_id=PAD,
    )  # fmt: skip


def prompt(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask of a prompt of ``count`` tokens."""
    row = [37, *range(1, count + 1), END]
    ids = torch.tensor([row + [PAD] * (LENGTH - len(row))])
    return ids, torch.tensor([[1.0] * len(row) + [0.0] * (LENGTH - len(row))])


def config_of(module: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: getattr(module.config, key) for key in keys}


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
@torch.no_grad()
def test_clip_gives_the_last_states(act: str) -> None:
    theirs: Any = lively(CLIPTextModel(clip_config(act)))
    ours = architecture("clip", config_of(theirs, clip.KEYS), {"skip": 0, "pooled": False})
    filled(ours, theirs.state_dict())
    ids, _ = prompt(4)
    torch.testing.assert_close(ours(ids)[0], theirs(ids).last_hidden_state, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [1, 5, 8])
@torch.no_grad()
def test_clip_gives_the_states_before_the_last_layer_and_those_of_the_end_token(count: int) -> None:
    theirs: Any = lively(CLIPTextModelWithProjection(clip_config("gelu")))
    state = {name.removeprefix("text_model."): value for name, value in theirs.state_dict().items()}
    ours = filled(architecture("clip", config_of(theirs, clip.KEYS), {"skip": 1, "pooled": True}), state)
    ids, mask = prompt(count)
    want, (hidden, pooled) = theirs(ids, output_hidden_states=True), ours(ids, mask)
    torch.testing.assert_close(hidden, want.hidden_states[-2], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(pooled, want.text_embeds, rtol=1e-5, atol=1e-6)


def test_clip_leaves_out_layers_that_nobody_reads() -> None:
    config = config_of(CLIPTextModel(clip_config("gelu")), clip.KEYS)
    names = architecture("clip", config, {"skip": 1, "pooled": False}).state_dict()
    assert any(name.startswith("encoder.layers.1.") for name in names)
    assert not any(name.startswith(("encoder.layers.2.", "final_layer_norm")) for name in names)


@pytest.mark.parametrize("act", ["gated-gelu", "relu"])
@pytest.mark.parametrize("masked", [True, False])
@torch.no_grad()
def test_t5_gives_its_states(act: str, masked: bool) -> None:
    theirs: Any = lively(
        T5EncoderModel(
            T5Config(
                vocab_size=40, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, feed_forward_proj=act,
                relative_attention_num_buckets=8, relative_attention_max_distance=6,
            )
        )
    )  # fmt: skip
    state = {name.removeprefix("encoder."): value for name, value in theirs.state_dict().items()}
    state["position_table"] = t5.position_table(state[t5.BIAS], LENGTH, 6)
    ours = architecture("t5", config_of(theirs, t5.KEYS), {"length": LENGTH, "masked": masked})
    filled(ours, {name: state[name] for name in ours.state_dict()})
    ids, mask = prompt(3)
    want = theirs(ids, attention_mask=mask if masked else None).last_hidden_state
    torch.testing.assert_close(ours(ids, mask)[0], want, rtol=1e-4, atol=1e-5)
    other, _ = prompt(6)
    changed = ours(torch.cat([ids[:, :5], other[:, 5:]], dim=1), mask)[0][:, :5]
    assert torch.equal(changed, ours(ids, mask)[0][:, :5]) == masked, "padding is seen unless it is masked"
