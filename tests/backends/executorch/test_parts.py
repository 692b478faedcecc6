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
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import LayerWeights
from dq_toolchain.toolchain.metrics import relative_error
from dq_toolchain.toolchain.parts.part import Part
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
        audit_part(self.file, read_pte(self.file), part)


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
    part, name = made.part, "embeddings.token_embedding"
    with pytest.raises(BackendError, match="does not hold the table of embeddings"):
        made.audit_as(replace(part, layers={**part.layers, name: _one_integer(part, name)}))
    bias = "encoder.layers.0.self_attn.q_proj.bias"
    floats = {**part.float_parameters, bias: part.float_parameters[bias] + 1}
    with pytest.raises(BackendError, match="belong to no layer"):
        made.audit_as(replace(part, float_parameters=floats))
