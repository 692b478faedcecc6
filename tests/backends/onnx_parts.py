"""Parts for tests of targets whose programs are ONNX graphs: a bundle's worth of one decoder, and planted faults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import onnx_ir
import torch
from torch import Tensor

from dq_toolchain.backends.common.onnx.building import constant
from dq_toolchain.backends.common.onnx.parts import graph_in, open_part
from dq_toolchain.backends.common.onnx.reading import products, read_weight
from dq_toolchain.toolchain.parts.artifact import PartsArtifact, PartsReference
from dq_toolchain.toolchain.parts.part import Part
from dq_toolchain.toolchain.parts.pipeline import PictureSize, Pipeline
from tests.tiny_parts import LENGTH, TINY, clip_part, decoder_part, encoder_part, latents, t5_part

KINDS: dict[str, Callable[[], Part]] = {
    "clip": clip_part,
    "clip without a pooled output": lambda: clip_part(pooled=False),
    "t5": t5_part,
    "t5 without a mask": lambda: t5_part(masked=False),
    "decoder": decoder_part,
    "tiny decoder": lambda: decoder_part(TINY),
    "encoder of pictures": encoder_part,
    "tiny encoder of pictures": lambda: encoder_part(TINY),
}
TABLE = "embeddings.token_embedding"
LAYERS = {
    "clip": "encoder.layers.1.mlp.fc2",
    "t5": "block.1.layer.1.DenseReluDense.wo",
    "decoder": "decoder.up_blocks.0.resnets.0.conv1",
    "tiny decoder": "decoder.layers.0",
    "encoder of pictures": "encoder.down_blocks.0.downsamplers.0.conv",
    "tiny encoder of pictures": "encoder.layers.2",
}
"""A layer of each kind of part that faults are planted in."""
WITH_TABLE = (*LAYERS.items(), ("clip", TABLE))


@cache
def part_of(kind: str) -> Part:
    """Of KINDS; made once."""
    return KINDS[kind]()


def graph_of(program: Path) -> Any:
    """The graph of a part's folder, as the audit reads it."""
    return onnx_ir.load(graph_in(program)).graph


@torch.no_grad()
def executed(part: Part, program: Path, call: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """What the program gives and what the module with the same integers gives, output by output."""
    execute = open_part(program, [port.name for port in part.inputs], [port.name for port in part.outputs])
    found = execute(call)
    return [(found[port.name], want) for port, want in zip(part.outputs, part.build()(*call.values()), strict=True)]


def change(graph: Any, name: str, place: int, by: Callable[[Any], Any]) -> None:
    """Give a constant of a graph another number at one place, in memory."""
    value = graph.initializers[name]
    array = value.const_value.numpy().copy()
    array.reshape(-1)[place] = by(array.reshape(-1)[place])
    value.const_value = onnx_ir.tensor(array, name=name)


def one_integer(graph: Any, layer: str) -> None:
    """Another integer of a layer's weights."""
    change(graph, f"{layer}.weight_q", 3, lambda q: q - 1 if q > 0 else q + 1)


def one_scale(graph: Any, layer: str) -> None:
    """Another scale of a layer's weights."""
    change(graph, f"{layer}.weight_scale", 1, lambda scale: scale * 2)


def one_bias(graph: Any, layer: str) -> None:
    """Another number in a layer's bias."""
    (node,) = (node for node in products(graph) if node.name == layer)
    change(graph, node.inputs[2].name, 0, lambda bias: bias + 1)


def one_range(graph: Any, layer: str) -> None:
    """Another scale of what a layer takes."""
    change(graph, f"{layer}:input.scale", 0, lambda scale: scale * 2)


def one_float(graph: Any, layer: str) -> None:
    """Another number in weights that are float."""
    change(graph, f"{layer}.weight", 0, lambda weight: weight + 1)


def in_float(graph: Any, layer: str) -> None:
    """A layer's weights in float: the numbers that its integers stand for."""
    (node,) = (node for node in products(graph) if node.name == layer)
    weight = read_weight(node.inputs[1])
    assert weight is not None
    assert weight.scale is not None
    shape = [1] * weight.integers.dim()
    shape[weight.axis] = -1
    value = constant(f"{layer}.float", weight.integers * weight.scale.reshape(shape))
    graph.register_initializer(value)
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
