"""Where the numbers of a saved program lie: its weights once, and nothing where the audit of its functions does not look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from dq_toolchain.backends.common.qdq.layer_numbers import fail
from dq_toolchain.backends.coreai.asset import most_bytes
from dq_toolchain.backends.coreai.ir import Graph, Operation, Program, read_bytes, resource_name
from dq_toolchain.backends.coreai.patch import QDQ, digest
from dq_toolchain.backends.coreai.proof.reading import PRODUCTS, SAME_NUMBERS, TABLE, UNPACKED, source

WEIGHTS = ("constant", UNPACKED)
"""What makes the weight of a product."""
SiteOf = Callable[[str, str], str | None]
"""(function, label of a quantize operation) -> the tensor that it quantizes, None for one that no site has."""


def check_storage(program: Program, size: int, site_of: SiteOf) -> None:
    """Raise BackendError for weights that are stored twice, or for layers where none may be.

    Args:
        size: bytes of the program's file.
    """
    _check_private_graphs(program)
    for function in program.functions.values():
        _check_quantization(function, site_of)
    _check_blobs(program, size, site_of)


def _check_private_graphs(program: Program) -> None:
    """Graphs that functions invoke compute with what they are given: neither quantization nor weights of a layer."""
    for graph in program.graphs.values():
        for op in graph.operations:
            if graph.private and (op.name in (*QDQ, UNPACKED, TABLE) or _has_weight(op)):
                raise fail(f"{op.label} is in the private graph {graph.name}, where no layer may be")
            if op.name != "invoke":
                continue
            callee = program.callee(op)
            for value, argument in zip(op.operands, callee.inputs.values(), strict=True):
                maker = source(value)
                if maker is not None and maker.name in WEIGHTS and any(map(_multiplies, argument.users)):
                    raise fail(f"{op.label} of {graph.name} gives a weight to the private graph {callee.name}")


def _has_weight(op: Operation) -> bool:
    makers = [source(one) for one in op.operands[:2]] if op.name in PRODUCTS else []
    return any(maker is not None and maker.name in WEIGHTS for maker in makers)


def _multiplies(op: Operation) -> bool:
    """It is a product, or moves numbers into one."""
    if op.name in SAME_NUMBERS:
        return any(_multiplies(user) for result in op.results for user in result.users)
    return op.name in PRODUCTS


def _check_quantization(function: Graph, site_of: SiteOf) -> None:
    """Every quantize operation is a site, and every product has a part in the output: what is dead proves nothing."""
    live = _live(function)
    for op in function.operations:
        if op.name == "quantize" and site_of(function.name, op.label) is None:
            raise fail(f"{op.label} of function {function.name} is no site of the artifact")
        if op.name in (*QDQ, *PRODUCTS) and op not in live:
            tensor = site_of(function.name, op.label) or op.label
            raise fail(f"{tensor} has no part in the output of function {function.name}")


def _live(graph: Graph) -> set[Operation]:
    """The operations that an output depends on."""
    found: set[Operation] = set()
    left = [value.producer for value in graph.outputs.values()]
    while left:
        op = left.pop()
        if op is not None and op not in found:
            found.add(op)
            left += [operand.producer for operand in op.operands]
    return found


@dataclass
class _Stored:
    """The blobs of a program.

    Attributes:
        blobs: name -> content and type, as a digest.
        of_function: function -> blobs that it refers to, each with a constant that does.
    """

    blobs: dict[str, bytes] = field(default_factory=dict)
    of_function: dict[str, dict[str, Operation]] = field(default_factory=dict)

    def add(self, graph: Graph, op: Operation) -> None:
        name = resource_name(op.raw)
        if name is None:
            return
        if name not in self.blobs:
            stored = read_bytes(op.raw, op.out.dtype, op.out.shape)
            self.blobs[name] = digest(stored) + str(op.out.raw.type).encode()
        self.of_function.setdefault(graph.name, {})[name] = op


def _check_blobs(program: Program, size: int, site_of: SiteOf) -> None:
    """No two blobs are equal, all functions refer to the same ones, and nothing else of their size is in the file."""
    stored = _Stored()
    for graph in program.graphs.values():
        for op in graph.operations:
            if op.name == "constant":
                stored.add(graph, op)
    first, *others = program.functions
    seen: dict[bytes, str] = {}
    for name, content in stored.blobs.items():
        if content in seen:
            both = " and ".join(one.partition("<")[2].partition(">")[0] for one in (seen[content], name))
            raise fail(f"the weights of {_owner(stored, name, site_of)} are stored twice, as {both}")
        seen[content] = name
    for other in others:
        ours, theirs = (stored.of_function.get(one, {}) for one in (first, other))
        if apart := sorted(ours.keys() ^ theirs.keys()):
            owner = _owner(stored, apart[0], site_of)
            raise fail(f"functions {first} and {other} do not share the weights of {owner}")
    allowed = most_bytes(program)
    if size > allowed:
        raise fail(f"the program has {size:,} bytes, its weights and operations account for at most {allowed:,}")


def _owner(stored: _Stored, blob: str, site_of: SiteOf) -> str:
    """The site whose product a blob is a weight of; otherwise the operation that uses it."""
    function, op = next((graph, found[blob]) for graph, found in stored.of_function.items() if blob in found)
    users = list(op.out.users)
    for user in users:
        if user.name in PRODUCTS:
            dequantize = source(user.operands[0])
            quantize = None if dequantize is None else dequantize.operands[0].producer
            return (quantize and site_of(function, quantize.label)) or user.label
        users += [after for after in user.out.users if after not in users]
        if len(users) > 20:
            break
    return op.out.users[0].label if op.out.users else op.label
