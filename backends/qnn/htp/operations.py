"""Operation by operation: does Qualcomm's emulator compute what is known of the chip, and that what was calibrated?

A rounding flip travels through a network and grows, so a whole call says little. Here every product gets the integers of the
simulation, and its result is compared with exact arithmetic (``arithmetic``). What is between products gets the integers that these
results are, and is compared with ONNX Runtime's float32. Blocks are pieces of several products, compared in the same way: what only
goes wrong where operations meet shows there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dq_toolchain.backends.base import Say
from dq_toolchain.backends.common.onnx.pieces import OWN_INPUTS, sites_of
from dq_toolchain.backends.common.onnx.session import open_session as open_on_cpu
from dq_toolchain.backends.qnn.chips import EMULATED
from dq_toolchain.backends.qnn.graph.biases import NPU, bias_integers, npu_biases
from dq_toolchain.backends.qnn.graph.numbers import Numbers, numbers_of, offset
from dq_toolchain.backends.qnn.graph.weights import weight_forms
from dq_toolchain.backends.qnn.htp.arithmetic import Sums
from dq_toolchain.backends.qnn.htp.check import products_of
from dq_toolchain.backends.qnn.htp.pieces import GIVEN, cut_block, cut_islands, cut_products, result_of
from dq_toolchain.backends.qnn.htp.session import open_session
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.metrics import relative_error
from dq_toolchain.toolchain.models.architectures import call_network
from dq_toolchain.toolchain.simulation.network import SimulatedLayer, SimulatedNetwork

STEPS = 1
"""Allowed distance of a product's result from exact arithmetic, and of 8-bit operands from those made in float32."""
FP16 = 2e-3
"""Allowed relative distance of what is computed in fp16."""
Values = Mapping[str, Tensor]


@dataclass(frozen=True)
class Product:
    """One product of one call.

    Attributes:
        steps: largest distance from the chip's arithmetic. exact_steps: from arithmetic that keeps the bits that the chip drops.
        different: share of results that are not those of the chip's arithmetic.
    """

    name: str
    steps: int
    exact_steps: int
    different: float


@dataclass(frozen=True)
class Island:
    """What is computed in float in front of one operand, or of the network's output.

    Attributes:
        relative: ||emulator - float32|| / ||float32||.
        steps: largest distance in steps of the operand's integers. bits: of these; both are 0 for the output.
    """

    name: str
    relative: float
    steps: int
    bits: int

    @property
    def is_right(self) -> bool:
        """8 bits round away what fp16 loses, but for neighbours; 16 bits do not."""
        return self.steps <= STEPS if self.bits == 8 else self.relative <= FP16


@dataclass(frozen=True)
class Block:
    """Several products in one piece: the largest relative distance of what leaves it, and where."""

    name: str
    products: int
    relative: float
    worst: str


@dataclass(frozen=True)
class Operations:
    """One call, every operation by itself."""

    products: tuple[Product, ...]
    islands: tuple[Island, ...]

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong, by name; empty where all is right."""
        wrong = [
            f"{each.name}: {each.steps} steps from exact arithmetic" for each in self.products if each.steps > STEPS
        ]
        return (*wrong, *(f"{each.name}: {each.relative:.2g} ({each.steps} steps) from float32" for each in self.islands
                          if not each.is_right))  # fmt: skip


class Call:
    """One call of the simulation: the integers that operands have, and the results that follow from them.

    Args:
        inputs: sample, step vectors and conditioning by name.
        npu: of the graph for the NPU, whose biases are others.
    """

    @torch.no_grad()
    def __init__(
        self, artifact: Artifact, simulated: SimulatedNetwork, k: int, inputs: Values, npu: bool = False
    ) -> None:
        self.artifact, self.inputs, self.group = artifact, inputs, artifact.group_of_step[k]
        self.forms, self.biases = weight_forms(artifact), npu_biases(artifact, self.group) if npu else {}
        self.numbers = numbers_of(artifact)
        simulated.set_step(k)
        keywords = {name: value for name, value in inputs.items() if name not in OWN_INPUTS}
        with simulated.recording() as integers:
            call_network(simulated, inputs["sample"], inputs["step_vectors"], keywords)
        names = products_of(artifact)
        self.integers = {
            site: integers[site] + offset(self.numbers[site].bits) for name in names for site in sites_of(name)
        }
        self.sums = {name: self._sums(name, simulated) for name in names}
        self.results = {result_of(name): self.rounded(name, self.sums[name].as_computed) for name in names}

    def rounded(self, product: str, steps: Tensor) -> Tensor:
        """Real values, in steps without a zero_point, as the unsigned integers of a product's result, float64."""
        of = self.numbers[result_of(product)]
        return (torch.round(steps) + int(of.zero_point[self.group])).clamp(0, 2**of.bits - 1)

    def _plain(self, site: str) -> tuple[Tensor, Tensor]:
        """Integers without a zero_point, float64, and the scale."""
        of = self.numbers[site]
        return self.integers[site].to(torch.float64) - int(of.zero_point[self.group]), of.scale[self.group].to(
            torch.float64
        )

    def _sums(self, product: str, simulated: SimulatedNetwork) -> Sums:
        first, *second = (self._plain(site) for site in sites_of(product))
        of: Numbers = self.numbers[result_of(product)]
        scale, wide = of.scale[self.group].to(torch.float64), self.numbers[sites_of(product)[0]].bits == 16
        if second:
            return Sums(torch.bmm(first[0], second[0][0]), None, first[1] * second[0][1] / scale, wide)
        layer = simulated.inner.get_submodule(product)
        assert isinstance(layer, SimulatedLayer)
        weights, form = self.artifact.layers[product], self.forms[product]
        unit = first[1] * form.scale(weights).to(torch.float64).view(layer.channel_shape)
        bias = self.biases.get(product, layer.bias)
        held = None if bias is None else bias_integers(bias.view(layer.channel_shape), unit)
        integers = form.integers(weights).view(layer.weight_q.shape)
        return Sums(layer.operation(first[0], integers.to(torch.float64), None), held, unit / scale, wide)

    def feeds(self, session: Any) -> dict[str, Any]:
        """What a piece takes: integers by the name of a site or result, and the network's own inputs."""
        given = {**self.integers, **self.results}
        return {port.name: _array(given[port.name.removeprefix(GIVEN)] if port.name.startswith(GIVEN)
                                  else self.inputs[port.name], port) for port in session.get_inputs()}  # fmt: skip

    def run(self, open: Callable[[Path], Any], path: Path) -> dict[str, Tensor]:
        """The outputs of a piece by name, float64."""
        session = open(path)
        names = [port.name for port in session.get_outputs()]
        values = session.run(names, self.feeds(session))
        return {name: torch.from_numpy(value.astype(np.float64)) for name, value in zip(names, values, strict=True)}


def _array(tensor: Tensor, port: Any) -> Any:
    dtype = port.type.removeprefix("tensor(").removesuffix(")").replace("float", "float32")
    return np.ascontiguousarray(tensor.reshape(tuple(port.shape)).numpy().astype(dtype))


def compare(
    path: Path,
    artifact: Artifact,
    simulated: SimulatedNetwork,
    k: int,
    inputs: Values,
    soc: str = EMULATED,
    say: Say = lambda _line: None,
) -> Operations:
    """Every operation of one graph at step k; see the top of this file.

    Args:
        path: of the graph, the calibrated one or that for the NPU; pieces of it are written beside it for a moment.
        inputs: sample, step vectors and conditioning by name.
    Raises:
        BackendError: Qualcomm's library is missing, or refuses a piece.
    """
    call = Call(artifact, simulated, k, inputs, path.name.endswith(NPU))

    def emulated(piece: Path) -> Any:
        return open_session(piece, soc, say)

    with cut_products(path) as piece:
        results = call.run(emulated, piece)
    with cut_islands(path) as piece:
        found, wanted = call.run(emulated, piece), call.run(open_on_cpu, piece)
    products = tuple(_product(name, results[result_of(name)], call) for name in call.sums)
    return Operations(products, tuple(_island(name, found[name], wanted[name], call) for name in wanted))


def compare_blocks(
    path: Path,
    artifact: Artifact,
    simulated: SimulatedNetwork,
    k: int,
    inputs: Values,
    soc: str = EMULATED,
    say: Say = lambda _line: None,
) -> tuple[Block, ...]:
    """Every block of one graph at step k in one piece; arguments and errors as of ``compare``."""
    call, found = Call(artifact, simulated, k, inputs, path.name.endswith(NPU)), []
    blocks: dict[str, list[str]] = {}
    for name in call.sums:
        blocks.setdefault(block_of(name), []).append(name)
    for block, names in blocks.items():
        with cut_block(path, names) as piece:
            got, wanted = call.run(lambda file: open_session(file, soc, say), piece), call.run(open_on_cpu, piece)
        away = {
            name: float(relative_error(got[name].reshape(1, -1), wanted[name].reshape(1, -1)).max()) for name in wanted
        }
        worst = max(away, key=lambda name: away[name])
        found.append(Block(block, len(names), away[worst], worst))
    return tuple(found)


def block_of(product: str) -> str:
    """``down_blocks.0.resnets.1.conv1`` is of ``down_blocks.0.resnets.1``, ``conv_in`` of itself."""
    parts = product.partition(":")[0].split(".")
    last = max((place for place, part in enumerate(parts[:4]) if part.isdigit()), default=0)
    return ".".join(parts[: last + 1])


def _product(name: str, got: Tensor, call: Call) -> Product:
    sums, computed = call.sums[name], call.results[result_of(name)]
    may_be = torch.stack([call.rounded(name, each) for each in sums.neighbours])
    away = (got.reshape(computed.shape) - may_be).abs().amin(0)
    exact = (got.reshape(computed.shape) - call.rounded(name, sums.exact)).abs()
    return Product(name, int(away.max()), int(exact.max()), float((away > 0).double().mean()))


def _island(name: str, got: Tensor, wanted: Tensor, call: Call) -> Island:
    of = call.numbers.get(name)
    zero = 0 if of is None else int(of.zero_point[call.group])
    relative = float(relative_error((got - zero).reshape(1, -1), (wanted - zero).reshape(1, -1)).max())
    return Island(name, relative, 0 if of is None else int((got - wanted).abs().max()), 0 if of is None else of.bits)
