"""Text encoders and decoders on ExecuTorch: executed, close to FP32, and the audit finds whatever is not in the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
import torch

from dq_toolchain.backends.base import PartProgram
from dq_toolchain.backends.executorch.parts import lower_part, open_part
from dq_toolchain.backends.executorch.proof.parts import audit_part
from dq_toolchain.backends.executorch.proof.pte_file import read_pte
from dq_toolchain.backends.executorch.proof.tables import LOOKUP
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import LayerWeights
from dq_toolchain.toolchain.metrics import relative_error
from dq_toolchain.toolchain.parts.part import Part
from tests.backends.executorch.damaged import before, planted_of, product_of, with_node, with_values
from tests.tiny_parts import TINY, calls_of, clip_part, decoder_part, encoder_part, t5_part

PARTS: dict[str, Callable[[], Part]] = {
    "clip": clip_part,
    "t5": t5_part,
    "t5 without a mask": lambda: t5_part(masked=False),
    "decoder": decoder_part,
    "tiny decoder": lambda: decoder_part(TINY),
    "encoder of pictures": encoder_part,
    "tiny encoder of pictures": lambda: encoder_part(TINY),
}
ROOM = 0.06
"""Relative error that 8-bit activations may cost a random network of this size."""


@dataclass(frozen=True, kw_only=True)
class Lowered:
    """One of PARTS, its file, and what the lowering says of it."""

    part: Part
    file: Path
    program: PartProgram

    def audit_as(self, part: Part) -> None:
        """Compare the file with another part than it was made of."""
        audit_part(read_pte(self.file), part)


@pytest.fixture(scope="module")
def lowered(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Lowered]:
    """What gives each of PARTS lowered; each is lowered once."""

    @cache
    def of(kind: str) -> Lowered:
        part, folder = PARTS[kind](), tmp_path_factory.mktemp("part")
        program = lower_part(part, folder)
        return Lowered(part=part, file=folder / program.file, program=program)

    return of


@pytest.mark.parametrize("kind", PARTS)
@torch.no_grad()
def test_a_part_computes_in_integers_what_its_module_does(kind: str, lowered: Callable[[str], Lowered]) -> None:
    made = lowered(kind)
    part = made.part
    execute = open_part(made.file, [p.name for p in part.inputs], [p.name for p in part.outputs])
    for call in calls_of(part):
        found, want = execute(call), part.build()(*call.values())
        for port, value in zip(part.outputs, want, strict=True):
            assert found[port.name].shape == value.shape
            assert relative_error(found[port.name], value).max() < ROOM
    integers = [row for row in made.program.operations if row.arithmetic.startswith("int8")]
    assert sum(row.count for row in integers) == len(part.layers) - len(part.tables)


def test_another_prompt_is_not_clipped_to_what_was_measured(lowered: Callable[[str], Lowered]) -> None:
    made = lowered("clip")
    part = made.part
    execute = open_part(made.file, ("ids", "mask"), ("hidden", "pooled"))
    wide = replace(part, float_parameters={n: v.clone() for n, v in part.float_parameters.items()})
    ids, mask = torch.full((1, 8), 3), torch.ones(1, 8)
    want = wide.build()(ids, mask)[0]
    assert relative_error(execute({"ids": ids, "mask": mask})["hidden"], want).max() < ROOM


def _one_integer(part: Part, name: str) -> LayerWeights:
    q = part.layers[name].weight_q.clone()
    q.view(-1)[3] += 1 if q.view(-1)[3] < 127 else -1
    return LayerWeights(q, part.layers[name].weight_scale)


def _one_scale(part: Part, name: str) -> LayerWeights:
    scale = part.layers[name].weight_scale.clone()
    scale[1] *= 2
    return LayerWeights(part.layers[name].weight_q, scale)


TABLE = "embeddings.token_embedding"


@pytest.mark.parametrize("spoil", [_one_integer, _one_scale])
@pytest.mark.parametrize(
    ("kind", "layer"),
    [
        ("clip", "encoder.layers.1.mlp.fc2"),
        ("clip", "text_projection"),
        ("decoder", "decoder.conv_in"),
        ("encoder of pictures", "encoder.down_blocks.0.downsamplers.0.conv"),
    ],
)
def test_a_file_of_other_weights_is_refused(
    kind: str, layer: str, spoil: Callable[[Part, str], LayerWeights], lowered: Callable[[str], Lowered]
) -> None:
    made = lowered(kind)
    made.audit_as(made.part)
    with pytest.raises(BackendError, match="weights and a bias that belong to no layer"):
        made.audit_as(replace(made.part, layers={**made.part.layers, layer: spoil(made.part, layer)}))


def test_a_file_without_a_table_or_with_another_bias_is_refused(lowered: Callable[[str], Lowered]) -> None:
    made = lowered("clip")
    part = made.part
    with pytest.raises(BackendError, match="does not hold the table of embeddings"):
        made.audit_as(replace(part, layers={**part.layers, TABLE: _one_integer(part, TABLE)}))
    bias = "encoder.layers.0.self_attn.q_proj.bias"
    floats = {**part.float_parameters, bias: part.float_parameters[bias] + 1}
    with pytest.raises(BackendError, match="belong to no layer"):
        made.audit_as(replace(part, float_parameters=floats))


def test_one_wrong_row_scale_of_a_token_table_is_refused(lowered: Callable[[str], Lowered]) -> None:
    """Tokens of the reference prompts need not look that row up."""
    made = lowered("clip")
    file, scales = read_pte(made.file), made.part.layers[TABLE].weight_scale
    with pytest.raises(BackendError, match=f"a row scale of {TABLE} differs"):
        made.audit_as(replace(made.part, layers={**made.part.layers, TABLE: _one_scale(made.part, TABLE)}))
    values = file.methods[0].delegates[0].values
    (number,) = (each for each, value in values.items() if value.data == scales.numpy().tobytes())
    changed = torch.cat([scales[:-1], scales[-1:] * 2]).numpy().tobytes()
    with pytest.raises(BackendError, match=f"a row scale of {TABLE} differs"):
        audit_part(with_values(file, {number: replace(values[number], data=changed)}), made.part)


def test_rows_without_their_scales_are_refused(lowered: Callable[[str], Lowered]) -> None:
    """The integers and the scales are in the file, but rows and scales are of other tokens, or are not multiplied."""
    made = lowered("clip")
    file = read_pte(made.file)
    text = f"does not hold the table of {TABLE} and the scale of each row"
    _, scales = (node for node in file.methods[0].portable if node.kind == LOOKUP)
    table, ids, *rest = scales.fields["arguments"]
    with pytest.raises(BackendError, match=text):
        audit_part(with_node(file, scales, arguments=(table, 0, *rest)), made.part)
    nodes = (node for graph in file.methods[0].delegates for node in graph.nodes)
    (product,) = (node for node in nodes if node.fields.get("input2_id") == scales.fields["output_id"])
    with pytest.raises(BackendError, match=text):
        audit_part(with_node(file, product, input2_id=ids), made.part)


@pytest.mark.parametrize("kind", ["decoder", "tiny decoder", "encoder of pictures"])
def test_a_convolution_with_a_wrong_range_is_refused(kind: str, lowered: Callable[[str], Lowered]) -> None:
    """One that was narrower would clip pictures of other prompts, one that was wider would be coarser."""
    made = lowered(kind)
    part, file = made.part, read_pte(made.file)
    layer = next(name for name, weights in part.layers.items() if weights.weight_q.dim() == 4)
    wrong = part.ranges[layer].clone()
    wrong[1] *= 0.9
    with pytest.raises(BackendError, match="cannot be traced to the ranges"):
        made.audit_as(replace(part, ranges={**part.ranges, layer: wrong}))
    graph, node = product_of(file, part.layers[layer])
    number, old = planted_of(graph, node)
    with pytest.raises(BackendError, match="a planted value is no end of the range"):
        audit_part(with_values(file, {number: replace(old, data=bytes(len(old.data)))}), part)


def test_a_convolution_with_the_range_of_another_is_refused(lowered: Callable[[str], Lowered]) -> None:
    made = lowered("tiny decoder")
    file, part = read_pte(made.file), made.part
    (graph, node), (_, other) = (product_of(file, part.layers[name]) for name in list(part.layers)[:2])
    for kind in ("Maximum", "Minimum"):
        clamp = before(graph, node, kind)
        file = with_node(file, clamp, input2_id=before(graph, other, kind).fields["input2_id"])
    first, second = list(part.layers)[:2]
    with pytest.raises(BackendError, match=f"the input of {first} is clamped to the range of {second}"):
        audit_part(file, part)
