"""Names the site where a computation goes wrong, so that an error can say more than "NaN"."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from dq_toolchain.calibrate.insert import QuantizedUNet
from dq_toolchain.calibrate.observer import Histogram
from dq_toolchain.toolchain.errors import CalibrationError
from dq_toolchain.toolchain.qparams import SMALLEST_SCALE
from dq_toolchain.toolchain.sites import Site


def first_bad_site(network: QuantizedUNet, run: Callable[[], object]) -> str | None:
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


def require_signal(sites: Sequence[Site], histograms: Sequence[Sequence[Histogram]]) -> None:
    """Raise CalibrationError naming the first site that only ever sees one value in a step group."""
    for step_group, row in enumerate(histograms):
        for site, histogram in zip(sites, row, strict=True):
            if histogram.low == histogram.high:
                raise CalibrationError(
                    f"activations at site {site.name} are constant ({histogram.low:g}) in step group "
                    f"{step_group}: no range can be chosen; check the model's weights and the conditioning"
                )


def at_smallest_scale(sites: Sequence[Site], scale: torch.Tensor) -> list[str]:
    """Sites whose scale (G, L) was raised to the smallest that fp16 holds exactly: their integers are coarser than chosen."""
    raised = (scale <= SMALLEST_SCALE).any(0).tolist()
    return [site.name for site, is_raised in zip(sites, raised, strict=True) if is_raised]
