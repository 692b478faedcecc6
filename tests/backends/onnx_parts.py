"""Parts for tests of targets whose programs are ONNX graphs: a bundle's worth of one decoder, and planted faults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dq_toolchain.backends.common.onnx.parts import open_part
from dq_toolchain.backends.common.onnx.reading import as_graph_has, products, read_weight
from dq_toolchain.toolchain.formats.artifact import LayerWeights
from dq_toolchain.toolchain.parts.artifact import PartsArtifact, PartsReference
from dq_toolchain.toolchain.parts.part import Part
from dq_toolchain.toolchain.parts.pipeline import PictureSize, Pipeline
from tests.tiny_parts import LENGTH, TINY, clip_part, decoder_part, latents, t5_part

PARTS: dict[str, Callable[[], Part]] = {
    "clip": clip_part,
    "clip without a pooled output": lambda: clip_part(pooled=False),
    "t5": t5_part,
    "t5 without a mask": lambda: t5_part(masked=False),
    "decoder": decoder_part,
    "tiny decoder": lambda: decoder_part(TINY),
}
TABLE = "embeddings.token_embedding"
FAULTY = [(clip_part, "encoder.layers.1.mlp.fc2"), (t5_part, "block.1.layer.1.DenseReluDense.wo"),
          (decoder_part, "decoder.up_blocks.0.resnets.0.conv1"), (decoder_part, "decoder.conv_in"), (clip_part, TABLE)]  # fmt: skip
"""A part, and a layer of it that is spoilt."""


@torch.no_grad()
def executed(part: Part, program: Path, call: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """What the program gives and what the module with the same integers gives, output by output."""
    execute = open_part(program, [port.name for port in part.inputs], [port.name for port in part.outputs])
    found = execute(call)
    return [(found[port.name], want) for port, want in zip(part.outputs, part.build()(*call.values()), strict=True)]


def one_integer(part: Part, layer: str) -> Part:
    """The part with one other integer."""
    q = part.layers[layer].weight_q.clone()
    q.view(-1)[3] += 1 if q.view(-1)[3] < 127 else -1
    return _with(part, layer, LayerWeights(q, part.layers[layer].weight_scale))


def one_scale(part: Part, layer: str) -> Part:
    """The part with one other scale."""
    scale = part.layers[layer].weight_scale.clone()
    scale[1] *= 2
    return _with(part, layer, LayerWeights(part.layers[layer].weight_q, scale))


def one_bias(part: Part, layer: str) -> Part:
    """The part with another bias."""
    bias = part.float_parameters[f"{layer}.bias"] + 1
    return replace(part, float_parameters={**part.float_parameters, f"{layer}.bias": bias})


def one_range(part: Part, layer: str) -> Part:
    """The part with another range of what a layer takes."""
    return replace(part, ranges={**part.ranges, layer: part.ranges[layer] * 2})


def in_float(model: Any, part: Part, layer: str) -> None:
    """Give a layer of a graph its weights in float, in place: the same numbers, and no integers."""
    from dq_toolchain.backends.common.onnx.building import constant

    (node,) = (node for node in products(model.graph) if node.name == layer)
    assert read_weight(node.inputs[1]) is not None
    value = constant(f"{layer}.float", as_graph_has(node, part.layers[layer].dequantized()).contiguous())
    model.graph.register_initializer(value)
    node.replace_input_with(1, value)


@torch.no_grad()
def decoder_alone(**changes: Any) -> PartsArtifact:
    """The parts of a pipeline without text: one decoder, with its own pictures for FP32's."""
    part = replace(decoder_part(), **changes)
    given = torch.cat([call["latents"] for call in latents()])
    pictures = torch.cat([part.build()(row[None])[0] for row in given])
    return PartsArtifact(
        pipeline=Pipeline(
            pipeline="DiTPipeline", tokenizers=(), encoders=(), conditioning={}, constants=None, zeros_without_negative=False,
            decoder=PictureSize(channels=3, height=LENGTH, width=LENGTH),
        ),
        parts=(part,),
        constants={},
        reference=PartsReference(prompts=(), conditioning={}, latents=given, pictures=pictures),
    )  # fmt: skip


def _with(part: Part, layer: str, weights: LayerWeights) -> Part:
    return replace(part, layers={**part.layers, layer: weights})
