"""Names of the methods in a .pte, by ExecuTorch's own reader and without torch, which takes seconds to import."""

from __future__ import annotations

from pathlib import Path

from dq_toolchain.backends.common.quiet import quiet
from dq_toolchain.backends.executorch.vendor import NOISE, bindings
from dq_toolchain.toolchain.errors import BackendError


def method_names(program: Path) -> tuple[str, ...]:
    """Methods of a .pte; none is loaded. Raises BackendError: it is no program."""
    try:
        with quiet(NOISE, errors=False):
            opened = bindings()._load_program(str(program))
            return tuple(opened.get_method_name(index) for index in range(opened.num_methods()))
    except (RuntimeError, KeyError, OSError) as error:
        raise BackendError(
            f"ExecuTorch cannot load the program: {' '.join(str(error).split())[:300]}; run `dq-toolchain export` again"
        ) from error
