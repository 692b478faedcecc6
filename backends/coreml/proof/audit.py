"""Proof, from the saved package alone, that every function holds the artifact's integers and its step group's scales.

Layers are recognised by their integers, not by names or tags. Anything that is not as it must be stops the export.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dq_toolchain.backends.coreml.graph.build import scale_and_factors
from dq_toolchain.backends.coreml.graph.qparams import QParams
from dq_toolchain.backends.coreml.interpreter.program import Program
from dq_toolchain.backends.coreml.package import PRODUCTS
from dq_toolchain.backends.coreml.proof.operations import operations_table
from dq_toolchain.backends.coreml.proof.reading import (
    Operand,
    Tail,
    Unreadable,
    Weight,
    digest,
    has_integer_weights,
    is_dequantized,
    read_float,
    read_operand,
    read_ratio,
    read_tail,
    read_weight,
)
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.bundle import Operation
from dq_toolchain.toolchain.quant.attention import PRODUCT_OPERANDS

REMEDY = "nothing was exported; report it with calibration.json"


def _fail(text: str) -> BackendError:
    return BackendError(f"audit of the saved package failed: {text}; {REMEDY}")


@dataclass(frozen=True)
class Expected:
    """The numbers a package must hold.

    Attributes:
        runtime: its scales are reference scales, alike in all step groups, and ratios come in as an input.
        outputs: the outputs of layers are quantized too.
        half: arithmetic between integer layers is fp16.
    """

    qparams: QParams
    runtime: bool = False
    outputs: bool = False
    half: bool = True


@dataclass(frozen=True)
class Audited:
    """What the audit found out.

    Attributes:
        operations: the table of what runs in integers, what in float, and why; counted over all functions.
        sites: function -> name of a quantize operation -> its column in ``Expected.qparams``.
    """

    operations: tuple[Operation, ...]
    sites: Mapping[str, Mapping[str, int]]


def audit(programs: Mapping[str, Program], artifact: Artifact, expected: Expected) -> Audited:
    """Check every function.

    Args:
        programs: by function name; one per row of ``expected.qparams``, in their order.
    Raises:
        BackendError: an integer, a scale or a zero_point differs, a site is missing, or a product runs in float.
    """
    rows = len(expected.qparams.scale)
    if len(programs) != rows:
        raise _fail(f"{len(programs)} functions, expected {rows}")
    by_digest: dict[bytes, list[str]] = defaultdict(list)
    for layer, weights in artifact.layers.items():
        by_digest[digest(weights.weight_q)].append(layer)
    sites = {
        name: dict(_FunctionAudit(artifact, expected, group, by_digest).check(program))
        for group, (name, program) in enumerate(programs.items())
    }
    return Audited(tuple(operations_table(programs.values())), sites)


class _FunctionAudit:
    """One function against one step group; layers and attention products are crossed off as they are found."""

    def __init__(
        self, artifact: Artifact, expected: Expected, group: int, by_digest: Mapping[bytes, list[str]]
    ) -> None:
        self.artifact, self.expected, self.group, self.by_digest = artifact, expected, group, by_digest
        self.layers = {name: artifact.site_index(name) for name in artifact.layers}
        self.kept = list(artifact.float_layers)
        self.products = list(_attention_products(artifact))

    def check(self, program: Program) -> Iterator[tuple[str, int]]:
        """(name of a quantize operation, its column) of everything found."""
        for op in program.operations:
            try:
                if op.op_type in PRODUCTS and not has_integer_weights(op):
                    self._kept(op)
                elif op.op_type in PRODUCTS:
                    yield from self._layer(op, read_weight(op))
                elif op.op_type == "matmul" and is_dequantized(op.x) and is_dequantized(op.y):
                    yield from self._product(op)
            except Unreadable as error:
                raise _fail(str(error)) from error
        missing = [*self.layers, *self.kept, *(self.expected.qparams.names[pair[0]] for pair in self.products)]
        if missing:
            raise _fail(f"{missing[0]} is not in function {program.name}")

    def _layer(self, op: Any, weight: Weight) -> Iterator[tuple[str, int]]:
        """Cross off the layer: among those of the same integers, the one of which the rest is right too."""
        same = [name for name in self.by_digest.get(digest(weight.integers), ()) if name in self.layers]
        faults = [f"{op.op_type} {op.name!r} has integers of no layer that is left"]
        for layer in same:
            site = self.layers[layer]
            try:
                operand = self._operand(op.x, site)
                has_bias = f"{layer}.bias" in self.artifact.float_parameters
                wanted = self.artifact.layers[layer].weight_scale
                factors = len(scale_and_factors(wanted, weight.is_table, self.expected.half)[1])
                tail = read_tail(op, factors, operand.ratio is not None, has_bias)
                self._tail(tail, operand.ratio, layer, weight.scale)
            except Unreadable as error:
                faults.append(str(error))
                continue
            del self.layers[layer]
            yield operand.name, site
            if self.expected.outputs:
                index = len(self.artifact.sites) + site
                yield self._output(tail, index), index
            return
        raise Unreadable(faults[:2][-1])

    def _kept(self, op: Any) -> None:
        """Cross off the layer kept in float that has these weights and this bias, in the type of the program's arithmetic."""
        weight, bias = read_float(op.weight), read_float(op.bias)
        half = op.weight.val is not None and np.asarray(op.weight.val).dtype == np.float16
        for layer in self.kept:
            found = (self.artifact.float_parameters.get(f"{layer}.{name}") for name in ("weight", "bias"))
            pairs = zip((weight, bias), found, strict=True)
            if all(_same_floats(got, wanted, half) for got, wanted in pairs):
                self.kept.remove(layer)
                return
        raise Unreadable(f"{op.op_type} {op.name!r} runs in float and is no layer of keep_float")

    def _tail(self, tail: Tail, ratio: int | None, layer: str, scale: Tensor) -> None:
        """Scales of channels and the bias, in the type of the program's arithmetic; coremltools fills in zeros for a bias."""
        wanted = self.artifact.layers[layer].weight_scale
        got = scale * tail.rest  # one number if the program has one for the whole tensor
        if got.numel() not in (1, wanted.numel()) or not torch.equal(got.expand_as(wanted), wanted):
            raise _Different(f"the weight scales of {layer} differ")
        if tail.ratio != ratio:
            raise _Different(f"{layer} is divided by ratio {ratio} and multiplied by ratio {tail.ratio}")
        bias = self.artifact.float_parameters.get(f"{layer}.bias")
        added = torch.zeros(()) if tail.bias is None else tail.bias
        summand = torch.zeros(()) if bias is None else bias.to(torch.float16).to(torch.float32) if tail.half else bias
        if not torch.equal(*torch.broadcast_tensors(added, summand)):
            raise _Different(f"the bias of {layer} differs")

    def _product(self, op: Any) -> Iterator[tuple[str, int]]:
        """Cross off the pair of sites by its numbers: modules are not executed in the order in which they are listed."""
        faults = [f"attention product {op.name!r} is none of the artifact's"]
        for pair in self.products:
            try:
                operands = [self._operand(var, site) for var, site in zip((op.x, op.y), pair, strict=True)]
            except _Different as error:
                faults.append(str(error))
                continue
            out = op.outputs[0]
            for operand in operands:
                if operand.ratio is not None:
                    out, ratio = read_ratio(out)
                    if ratio != operand.ratio:
                        raise Unreadable(
                            f"product {op.name!r} is divided by ratio {operand.ratio}, multiplied by {ratio}"
                        )
            self.products.remove(pair)
            yield from zip((operand.name for operand in operands), pair, strict=True)
            return
        raise Unreadable(faults[:2][-1])

    def _operand(self, var: Any, index: int) -> Operand:
        """Raises _Different: no Q/DQ in front of a product, or with other numbers."""
        name, wanted = self.expected.qparams.names[index], self.expected.qparams.at(self.group, index)
        try:
            operand = read_operand(var)
        except Unreadable as error:
            raise _Different(f"{name} {error}") from error
        ratio = index if self.expected.runtime else None
        if operand.ratio != ratio:
            raise _Different(f"{name} is divided by ratio {operand.ratio}, expected is {ratio}")
        for what, got in zip(("quantize", "dequantize"), operand.numbers, strict=True):
            if got != wanted:
                raise _Different(
                    f"{what} of {name} has scale and zero_point {got} in step group {self.group}, the artifact "
                    f"has {wanted}"
                )
        if operand.dtype != "int8":
            raise _Different(f"{name} is quantized to {operand.dtype}, expected int8")
        return operand

    def _output(self, tail: Tail, index: int) -> str:
        users = tail.out.child_ops
        if len(users) != 1 or users[0].op_type != "quantize":
            raise Unreadable(f"{self.expected.qparams.names[index]} is not quantized")
        return self._operand(users[0].outputs[0].child_ops[0].outputs[0], index).name


def _same_floats(got: Tensor | None, wanted: Tensor | None, half: bool) -> bool:
    """Equal numbers, shapes aside; coremltools fills in zeros for a bias."""
    if got is None or wanted is None:
        return (
            not (torch.zeros(()) if got is None else got).any()
            and not (torch.zeros(()) if wanted is None else wanted).any()
        )
    rounded = wanted.to(torch.float16).to(torch.float32) if half else wanted
    return torch.equal(got.flatten(), rounded.flatten())


class _Different(Unreadable):
    """A form that is right with numbers that are not: another layer or pair may fit."""


def _attention_products(artifact: Artifact) -> Iterator[tuple[int, int]]:
    """Pairs of sites that are multiplied: q and k, probs and v."""
    names = {site.name: index for index, site in enumerate(artifact.sites)}
    for layer in dict.fromkeys(site.layer for site in artifact.sites if site.kind == "attention"):
        for left, right in PRODUCT_OPERANDS.values():
            yield names[f"{layer}:{left}"], names[f"{layer}:{right}"]
