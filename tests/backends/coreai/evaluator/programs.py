"""Small programs made of torch modules, converted as the target converts networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from dq_toolchain.backends.coreai.asset import save
from dq_toolchain.backends.coreai.graph.convert import Callee, to_core_ai


def save_functions(modules: Mapping[str, tuple[nn.Module, Sequence[Tensor]]], asset: Path) -> Path:
    """One function each, with inputs x0, x1, ... and outputs y0, y1, ..."""
    save(to_core_ai(*(_callee(name, *each) for name, each in modules.items())), asset)
    return asset


def _callee(name: str, module: nn.Module, arguments: Sequence[Tensor]) -> Callee:
    results = module(*arguments)
    return Callee(
        module=module.eval(),
        arguments=arguments,
        function=name,
        inputs=[f"x{i}" for i in range(len(arguments))],
        outputs=[f"y{i}" for i in range(len(results) if isinstance(results, tuple) else 1)],
    )
