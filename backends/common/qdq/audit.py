"""Proof, from the saved program alone, that every function holds the artifact's integers and its step group's scales.

Layers are recognised by their integers, not by names or tags. Anything that is not as it must be stops the export.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from dq_toolchain.backends.common.qdq.layer_numbers import Different, check_tail, fail, nearest, rounded
from dq_toolchain.backends.common.qdq.qparams import QParams
from dq_toolchain.backends.common.qdq.reading import (
    Column,
    Found,
    Numbers,
    Operand,
    Reader,
    Tail,
    Unreadable,
    Weight,
    digest,
)
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.quant.attention import PRODUCT_OPERANDS


@dataclass(frozen=True)
class Expected:
    """The numbers a package must hold.

    Attributes:
        runtime: "ratio": its scales are reference scales, alike in all step groups, and ratios to them come in as an input;
            "scale": the scales themselves do; None: scales are constants.
        outputs: the outputs of layers are quantized too.
        half: arithmetic between integer layers is fp16.
    """

    qparams: QParams
    runtime: Literal["ratio", "scale"] | None = None
    outputs: bool = False
    half: bool = True

    def numbers(self, group: int, index: int) -> Numbers:
        """What the Q/DQ of a column must hold in a step group."""
        return (Column(index), 0) if self.runtime == "scale" else self.qparams.at(group, index)


Sites = Mapping[str, Mapping[str, int]]
"""function -> name of a quantize operation -> its column in ``Expected.qparams``."""


def audit(programs: Mapping[str, Any], artifact: Artifact, expected: Expected, reader: Reader[Any]) -> Sites:
    """Check every function; returns which site each quantize operation belongs to.

    Args:
        programs: by function name; one per row of ``expected.qparams``, in their order.
    Raises:
        BackendError: an integer, a scale or a zero_point differs, a site is missing, or a product runs in float.
    """
    rows = len(expected.qparams.scale)
    if len(programs) != rows:
        raise fail(f"{len(programs)} functions, expected {rows}")
    by_digest: dict[bytes, list[str]] = defaultdict(list)
    for layer, weights in artifact.layers.items():
        by_digest[digest(weights.weight_q)].append(layer)
    return {
        name: dict(_FunctionAudit(artifact, expected, group, by_digest, reader).check(name, program))
        for group, (name, program) in enumerate(programs.items())
    }


class _FunctionAudit:
    """One function against one step group; layers and attention products are crossed off as they are found."""

    def __init__(
        self,
        artifact: Artifact,
        expected: Expected,
        group: int,
        by_digest: Mapping[bytes, list[str]],
        reader: Reader[Any],
    ) -> None:
        self.artifact, self.expected, self.group, self.by_digest = artifact, expected, group, by_digest
        self.reader = reader
        self.layers = {name: artifact.site_index(name) for name in artifact.layers}
        self.kept = list(artifact.float_layers)
        self.products = list(_attention_products(artifact))

    def check(self, name: str, program: Any) -> Iterator[tuple[str, int]]:
        """(name of a quantize operation, its column) of everything found."""
        for found in self.reader.products(program):
            try:
                if found.kind == "float":
                    self._kept(found)
                elif found.kind == "integer":
                    yield from self._layer(found, self.reader.weight(found.op))
                else:
                    yield from self._product(found)
            except Unreadable as error:
                raise fail(str(error)) from error
        missing = [*self.layers, *self.kept, *(self.expected.qparams.names[pair[0]] for pair in self.products)]
        if missing:
            raise fail(f"{missing[0]} is not in function {name}")

    def _layer(self, found: Found, weight: Weight) -> Iterator[tuple[str, int]]:
        """Cross off the layer: among those of the same integers, the one of which the rest is right too."""
        same = [name for name in self.by_digest.get(digest(weight.integers), ()) if name in self.layers]
        near = "" if same else nearest(weight.integers, self.artifact, self.layers)
        faults = [f"{found.text} has integers of no layer that is left{near}"]
        for layer in same:
            site = self.layers[layer]
            try:
                operand = self._operand(site, found.op)
                has_bias = f"{layer}.bias" in self.artifact.float_parameters
                wanted = self.artifact.layers[layer].weight_scale
                factors = self.reader.factors(wanted, weight.is_table, self.expected.half)
                tail = self.reader.tail(found.op, factors, operand.ratio is not None, has_bias)
                check_tail(tail, operand.ratio, self.artifact, layer, weight.scale)
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

    def _kept(self, found: Found) -> None:
        """Cross off the layer kept in float that has these weights and this bias, in the type of the program's arithmetic."""
        weight, bias, half = self.reader.float_parameters(found.op)
        for layer in self.kept:
            parameters = (self.artifact.float_parameters.get(f"{layer}.{name}") for name in ("weight", "bias"))
            pairs = zip((weight, bias), parameters, strict=True)
            if all(_same_floats(got, wanted, half) for got, wanted in pairs):
                self.kept.remove(layer)
                return
        near = "" if weight is None else nearest(weight, self.artifact, self.layers, in_float=True)
        raise Unreadable(f"{found.text} runs in float and is no layer of keep_float{near}")

    def _product(self, found: Found) -> Iterator[tuple[str, int]]:
        """Cross off the pair of sites by its numbers: modules are not executed in the order in which they are listed."""
        faults = [f"attention product {found.text} is none of the artifact's"]
        for pair in self.products:
            try:
                operands = [self._operand(site, found.op, number) for number, site in enumerate(pair)]
            except Different as error:
                faults.append(str(error))
                continue
            out = self.reader.result(found.op)
            for operand in operands:
                if operand.ratio is not None:
                    out, ratio = self.reader.ratio(out)
                    if ratio != operand.ratio:
                        raise Unreadable(
                            f"product {found.text} is divided by ratio {operand.ratio}, multiplied by {ratio}"
                        )
            self.products.remove(pair)
            yield from zip((operand.name for operand in operands), pair, strict=True)
            return
        raise Unreadable(faults[:2][-1])

    def _operand(self, index: int, op: Any, number: int = 0) -> Operand:
        """Raises Different: no Q/DQ in front of a product, or with other numbers."""
        try:
            operand = self.reader.operand(op, number)
        except Unreadable as error:
            raise Different(f"{self.expected.qparams.names[index]} {error}") from error
        return self._right(operand, index)

    def _right(self, operand: Operand, index: int) -> Operand:
        name, wanted = self.expected.qparams.names[index], self.expected.numbers(self.group, index)
        ratio = index if self.expected.runtime == "ratio" else None
        if operand.ratio != ratio:
            raise Different(f"{name} is divided by ratio {operand.ratio}, expected is {ratio}")
        for what, got in zip(("quantize", "dequantize"), operand.numbers, strict=True):
            if got != wanted:
                raise Different(
                    f"{what} of {name} has scale and zero_point {got} in step group {self.group}, the artifact "
                    f"has {wanted}"
                )
        if operand.dtype != "int8":
            raise Different(f"{name} is quantized to {operand.dtype}, expected int8")
        return operand

    def _output(self, tail: Tail, index: int) -> str:
        name = self.expected.qparams.names[index]
        try:
            operand = self.reader.output(tail)
        except Unreadable as error:
            raise Unreadable(f"{name} {error}") from error
        return self._right(operand, index).name


def _same_floats(got: Tensor | None, wanted: Tensor | None, half: bool) -> bool:
    """Equal numbers, shapes aside; a converter may fill in zeros for a bias."""
    if got is None or wanted is None:
        return (
            not (torch.zeros(()) if got is None else got).any()
            and not (torch.zeros(()) if wanted is None else wanted).any()
        )
    return torch.equal(got.flatten(), rounded(wanted, half).flatten())


def _attention_products(artifact: Artifact) -> Iterator[tuple[int, int]]:
    """Pairs of sites that are multiplied: q and k, probs and v."""
    names = {site.name: index for index, site in enumerate(artifact.sites)}
    for layer in dict.fromkeys(site.layer for site in artifact.sites if site.kind == "attention"):
        for left, right in PRODUCT_OPERANDS.values():
            yield names[f"{layer}:{left}"], names[f"{layer}:{right}"]
