"""Names the site at which a computation stops being finite, so that a text can say more than "NaN"."""

from __future__ import annotations

from collections.abc import Callable

import torch

from dq_toolchain.calibrate.network.graphs import not_replayed
from dq_toolchain.calibrate.network.insert import QuantizedNetwork
from dq_toolchain.toolchain.quant.hooks import hooks


def first_bad_site(network: QuantizedNetwork, run: Callable[[], object]) -> str | None:
    """The first site, in order of execution, whose input or scale is NaN or infinite; None if all are finite."""
    bad: list[str] = []

    def look(name: str, x: torch.Tensor, output: torch.Tensor) -> None:
        if not bad and not (x.isfinite().all() and output.isfinite().all()):
            bad.append(name)

    handles = (
        quantizer.register_forward_hook(lambda _module, inputs, output, name=name: look(name, inputs[0], output))
        for name, quantizer in network.activations.items()
    )
    with not_replayed(network), hooks(handles), torch.no_grad():
        run()
    return bad[0] if bad else None
