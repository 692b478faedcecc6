"""Names the site at which a computation stops being finite, so that a text can say more than "NaN"."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from dq_toolchain.calibrate.network.insert import QuantizedNetwork


def first_bad_site(network: QuantizedNetwork, run: Callable[[], object]) -> str | None:
    """The first site, in order of execution, whose input or scale is NaN or infinite; None if all are finite."""
    bad: list[str] = []
    handles = []
    for name, quantizer in network.activations.items():

        def look(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor, name: str = name) -> None:
            if not bad and not (inputs[0].isfinite().all() and output.isfinite().all()):
                bad.append(name)

        handles.append(quantizer.register_forward_hook(look))
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return bad[0] if bad else None
