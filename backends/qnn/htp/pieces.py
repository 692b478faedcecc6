"""A graph cut at its integers: into products, into what is between them, or into blocks, with integer inputs and outputs.

Inputs and outputs have the names of sites and results, such as ``mid_block.attentions.0.to_q:input`` and ``...to_q:output``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dq_toolchain.backends.common.onnx.libraries import graph_passes, onnx_ir
from dq_toolchain.backends.common.onnx.pieces import sites_of
from dq_toolchain.backends.common.onnx.reading import PRODUCTS, products
from dq_toolchain.backends.qnn.graph.rewrite import RESULT
from dq_toolchain.backends.qnn.proof.reading import Around, read_around

GIVEN = "given::"
"""Begins the name of an input that another piece computes."""


def result_of(product: str) -> str:
    """The name of a product's result, as sites are called."""
    layer, _, operand = product.partition(":")
    return f"{layer}:{RESULT.get(operand, 'output')}"


def integer_products(graph: Any) -> Iterator[tuple[Any, Around]]:
    """The nodes that multiply integers, with what stands around them."""
    for node in products(graph):
        around = read_around(node)
        if around.result is not None and all(operand is not None for operand in around.operands):
            yield node, around


class _Cut:
    """A graph that is being cut; see the functions below."""

    def __init__(self, path: Path) -> None:
        self.model = onnx_ir().load(path)
        self.graph = self.model.graph
        self.held = list(integer_products(self.graph))
        self._given: set[Any] = set()

    def give(self, dequantize: Any, name: str) -> None:
        """What is dequantized becomes an input; one quantizer may serve several sites, the first of which names it."""
        if dequantize not in self._given:
            old = dequantize.inputs[0]
            value = onnx_ir().Value(name=GIVEN + name, shape=old.shape, type=old.type)
            dequantize.replace_input_with(0, value)
            self.graph.inputs.append(value)
            self._given.add(dequantize)

    def keep(self, node: Any, name: str) -> None:
        """Integers, or what they are dequantized to, become an output."""
        value = node.outputs[0]
        if value not in self.graph.outputs:
            value.name = name
            self.graph.outputs.append(value)

    @contextmanager
    def saved(self, path: Path) -> Iterator[Path]:
        """A file of what is left, beside the whole graph for a moment: it needs the same file of weights."""
        graph_passes().RemoveUnusedNodesPass()(self.model)
        for value in [value for value in self.graph.inputs if not value.uses()]:
            self.graph.inputs.remove(value)
        try:
            onnx_ir().save(self.model, path)
            yield path
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def cut_products(path: Path) -> Iterator[Path]:
    """Every product by itself: from the integers of its operands to those of its result."""
    cut = _Cut(path)
    cut.graph.outputs.clear()
    for node, around in cut.held:
        for site, operand in zip(sites_of(str(node.name)), around.operands, strict=True):
            assert operand is not None
            cut.give(operand.dequantize, site)
        assert around.result is not None
        cut.keep(around.result.quantize, result_of(str(node.name)))
    with cut.saved(path.with_name(f".{path.stem}.products.onnx")) as file:
        yield file


@contextmanager
def cut_islands(path: Path) -> Iterator[Path]:
    """What is between products, in float: from the integers of results to those of operands, and to the network's output."""
    cut = _Cut(path)
    for node, around in cut.held:
        assert around.result is not None
        cut.give(around.result.dequantize, result_of(str(node.name)))
        for site, operand in zip(sites_of(str(node.name)), around.operands, strict=True):
            assert operand is not None
            cut.keep(operand.quantize, site)
    with cut.saved(path.with_name(f".{path.stem}.islands.onnx")) as file:
        yield file


@contextmanager
def cut_block(path: Path, block: Collection[str]) -> Iterator[Path]:
    """The products of these names and what follows each of them, in one piece, up to the operands of products outside.

    These are real values: a result that is quantized once more with nothing between is not taken as integers that leave a graph.
    """
    cut = _Cut(path)
    outside = [(node, around) for node, around in cut.held if node.name not in block]
    for node, around in outside:
        assert around.result is not None
        cut.give(around.result.dequantize, result_of(str(node.name)))
    ends = [value for value in cut.graph.outputs if _needs(value, block)]
    cut.graph.outputs.clear()
    cut.graph.outputs.extend(ends)
    for node, around in outside:
        for site, operand in zip(sites_of(str(node.name)), around.operands, strict=True):
            assert operand is not None
            if _needs(operand.source, block):
                cut.keep(operand.dequantize, site)
    with cut.saved(path.with_name(f".{path.stem}.block.onnx")) as file:
        yield file


def _needs(value: Any, block: Collection[str]) -> bool:
    """Whether a product of the block takes part in a value."""
    todo, seen = [value], set()
    while todo:
        node = todo.pop().producer()
        if node is None or node in seen:
            continue
        if node.op_type in PRODUCTS and node.name in block:
            return True
        seen.add(node)
        todo += [each for each in node.inputs if each is not None]
    return False
