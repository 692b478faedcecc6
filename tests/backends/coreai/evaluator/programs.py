"""Small programs made of torch modules, converted as the target converts networks."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from dq_toolchain.backends.common.quiet import quiet
from dq_toolchain.backends.coreai.asset import save
from dq_toolchain.backends.coreai.vendor import NOISE, converter, operators


def save_functions(modules: Mapping[str, tuple[nn.Module, Sequence[Tensor]]], asset: Path) -> Path:
    """One function each, with inputs x0, x1, ... and outputs y0, y1, ..."""
    operators()
    with quiet(NOISE), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        to_core_ai = converter().TorchConverter(mode=converter().TorchConverter.Mode.RELEASE)
        for name, (module, inputs) in modules.items():
            results = module(*inputs)
            program = torch.export.export(module.eval(), tuple(inputs), strict=False)
            to_core_ai.add_exported_program(
                program.run_decompositions(converter().get_decomp_table()),
                entrypoint_name=name,
                input_names=[f"x{i}" for i in range(len(inputs))],
                output_names=[f"y{i}" for i in range(len(results) if isinstance(results, tuple) else 1)],
            )
        owner = to_core_ai.to_coreai()
    save(owner, asset)
    return asset
