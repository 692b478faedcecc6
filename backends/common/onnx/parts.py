"""Text encoders and decoders as ONNX graphs: exported, in the terms of an artifact, and executed.

A part is lowered by the same rewriter, lint and audit as the network: it is an artifact of one step group, with a site for every
tensor that is quantized. Its program is a folder ``NAME`` that holds ``NAME.onnx`` and ``weights.bin``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dq_toolchain.backends.base import RunPart
from dq_toolchain.backends.common.norms import scale_norms
from dq_toolchain.backends.common.onnx.building import check_model
from dq_toolchain.backends.common.onnx.export import DTYPES, PREFIX, graph_of, placeholder
from dq_toolchain.backends.common.onnx.libraries import onnx_ir
from dq_toolchain.backends.common.onnx.session import open_session
from dq_toolchain.backends.common.onnx.shared_weights import share_weights
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.parts.part import Part, example, filled
from dq_toolchain.toolchain.quant.layers import kind_of
from dq_toolchain.toolchain.quant.qparams import Scheme, activation_type, range_to_qparams
from dq_toolchain.toolchain.quant.site import Site
from dq_toolchain.toolchain.quant.sites import weighted_layers
from dq_toolchain.toolchain.sampler.table import SamplerTable

MARGIN = {8: 1.25, 16: 2.0}
"""Of a measured range, by bits: other prompts and pictures reach further than those that were measured. An octave of 16 bits costs
nothing, and what is clipped makes the worst pictures (docs/RESULTS.md, "From a prompt to a picture")."""
ENDS = {"input": slice(0, 2), "output": slice(2, 4)}
"""Of ``Part.ranges``."""
ONE_CALL = SamplerTable("none", "sample", (0.0,), ((1.0,),), ((0.0,),), (0.0,), (1.0,), 1.0)


def sites_of(part: Part, layers: Iterable[str], operand: str, bits: int, scheme: Scheme) -> tuple[Site, ...]:
    """What is quantized at these layers. ``operand``: "input" or "output"."""
    kinds = {name: kind_of(layer) for name, layer in weighted_layers(part.architecture())}
    weight_bits = 8 if operand == "input" else None
    return tuple(Site(layer, operand, kinds[layer], bits, scheme, weight_bits) for layer in layers)


def as_artifact(part: Part, sites: Sequence[Site]) -> Artifact:
    """A part as rewriters and audits take a network: one step group, scales of measured ranges with a margin, no tables."""
    numbers = [_numbers(part, site) for site in sites]
    none = torch.zeros(0)
    return Artifact(
        model_id=part.name,
        weight_hash="",
        config={},
        scheduler_config={},
        table=ONE_CALL,
        guidance=1.0,
        step_groups=((0,),),
        splits={},
        sites=tuple(sites),
        float_operations=(),
        layers={name: weights for name, weights in part.layers.items() if name not in part.tables},
        scale=(torch.stack([scale for scale, _ in numbers]) if numbers else none).reshape(1, -1),
        zero_point=(torch.stack([zero for _, zero in numbers]) if numbers else none.int()).reshape(1, -1),
        float_parameters=part.float_parameters,
        record={},
        module=part.architecture(),
    )


def _numbers(part: Part, site: Site) -> tuple[Tensor, Tensor]:
    low, high = part.ranges[site.layer][ENDS[site.operand]] * MARGIN[site.bits]
    return range_to_qparams(low, high, activation_type(site.bits), site.scheme)


class _Program(nn.Module):
    """A part as a function of positional tensors, float32 outside, whatever it computes in."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.add_module(PREFIX.removesuffix("."), module)  # the attribute names the graph's nodes

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        module = self.get_submodule(PREFIX.removesuffix("."))
        given = (x.to(self.dtype) if x.is_floating_point() else x for x in inputs)
        return tuple(out.to(torch.float32) for out in module(*given))


def export_part(part: Part, precision: str, opset: int) -> Any:
    """The onnx_ir model of a part in float; the weights of integer layers are placeholders.

    Args:
        precision: of what is between the integer layers, "fp32" or "fp16".
    Raises:
        BackendError: torch cannot export it.
    """
    dtype = DTYPES[precision]
    state = {name: value.to(dtype) for name, value in part.float_parameters.items()}
    for index, (name, weights) in enumerate(part.layers.items(), 1):
        state[f"{name}.weight"] = placeholder(index, weights.weight_q.shape, dtype)
    module = scale_norms(filled(part.architecture(), state)).to(dtype)
    arguments = tuple(example(port) for port in part.inputs)
    inputs, outputs = ([port.name for port in ports] for ports in (part.inputs, part.outputs))
    return graph_of(_Program(module, dtype).eval(), arguments, inputs, outputs, opset)


def graph_in(program: Path) -> Path:
    """The graph of a part's folder."""
    return program / f"{program.name}.onnx"


def write_graph(model: Any, program: Path) -> Any:
    """Write a part's folder anew; gives the graph that is read back from it. Raises BackendError: it is not valid ONNX."""
    program.mkdir(exist_ok=True)
    share_weights(model, program)
    onnx_ir().save(model, graph_in(program))
    check_model(graph_in(program))
    return onnx_ir().load(graph_in(program)).graph


def open_part(program: Path, inputs: Sequence[str], outputs: Sequence[str], threads: int | None = None) -> RunPart:
    """What executes a part's graph in ONNX Runtime; see ``base.OpenPart``."""
    name = program.name
    try:
        session = open_session(graph_in(program), threads)
    except Exception as error:  # the runtime's own kinds have no common base
        raise _failed(name, error) from error

    def execute(given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        try:
            found = session.run(list(outputs), {each: given[each].numpy() for each in inputs})
        except Exception as error:
            raise _failed(name, error) from error
        return dict(zip(outputs, map(torch.from_numpy, found), strict=True))

    return execute


def _failed(name: str, error: Exception) -> BackendError:
    text = " ".join(str(error).split())
    return BackendError(f"ONNX Runtime cannot execute {name}: {text[:300]}; run `dq-toolchain export` again")
