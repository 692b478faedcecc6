"""Text encoders and decoders of a pipeline for Core AI: integer weights, float arithmetic; written, audited, executed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from dq_toolchain.backends.base import RunPart
from dq_toolchain.backends.common.qdq.export import MAIN
from dq_toolchain.backends.common.qdq.parts import part_network
from dq_toolchain.backends.coreai.asset import save
from dq_toolchain.backends.coreai.graph.convert import Callee, converted
from dq_toolchain.backends.coreai.graph.operators import CoreAIOperators
from dq_toolchain.backends.coreai.patch import canonical
from dq_toolchain.backends.coreai.proof.file import prove_part
from dq_toolchain.backends.coreai.proof.operations import operations_table
from dq_toolchain.backends.coreai.runtime.device import opened
from dq_toolchain.backends.coreai.settings import Settings
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.bundle import Operation
from dq_toolchain.toolchain.parts.part import Part, example
from dq_toolchain.toolchain.parts.picture import PictureDecoder

SUFFIX = ".aimodel"


class HalfPart(nn.Module):
    """A part in fp16 with float32 inputs and outputs; a decoder's latents are scaled and shifted in float32 before."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.decodes = network.half(), isinstance(network, PictureDecoder)
        if isinstance(network, PictureDecoder):
            unscaled = network.unscaled
            network.unscaled = lambda latents: unscaled(latents).half()

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        whole = (each if self.decodes or not each.is_floating_point() else each.half() for each in inputs)
        return tuple(each.float() for each in self.network(*whole))


def write_part(part: Part, folder: Path, settings: Settings, half: bool) -> tuple[str, Iterable[Operation]]:
    """Write NAME.aimodel, read it back, and compare its integers with the part's; see ``common.qdq.part_export.WritePart``."""
    asset = folder / f"{part.name}{SUFFIX}"
    network = part_network(part, CoreAIOperators(half), half)
    callee = Callee(
        module=HalfPart(network) if half else network,
        arguments=[example(port) for port in part.inputs],
        function=MAIN,
        inputs=[port.name for port in part.inputs],
        outputs=[port.name for port in part.outputs],
    )
    owner = converted(callee, half, part.name)
    del network, callee
    canonical(owner, (weights.weight_q.numpy() for weights in part.layers.values()))
    save(owner, asset)
    del owner
    return asset.name, operations_table(prove_part(asset, part, half))


def open_part(program: Path, inputs: Sequence[str], outputs: Sequence[str], threads: int | None = None) -> RunPart:
    """What executes one part; see ``base.OpenPart``."""
    if threads is not None:
        raise BackendError("threads cannot be set for target 'coreai': Core AI chooses them; leave --threads out")
    call, _runtime = opened(program, (MAIN,))

    def execute(given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        found = call(MAIN, {name: given[name] for name in inputs})
        return {name: found[name] for name in outputs}

    return execute
