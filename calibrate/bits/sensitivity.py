"""What rounding a layer's weights does to the end of the sampler, for every layer and width at once.

To first order the final latent moves by J dW, with J the derivative through *all* steps, errors made early and carried
on included. With v of independent random signs, E (v' J dW)^2 = |J dW|^2 (Hutchinson 1990), and v' J is one sweep of the
adjoint over the whole run: it serves every layer and every width. Single-step sensitivity, as in mixed precision for
classifiers, sees none of the growth between steps.

Gradients are used and dropped layer by layer, so that memory holds one layer's gradient whatever the network's size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.data.samples import Samples
from dq_toolchain.calibrate.data.trajectories import Trajectories
from dq_toolchain.calibrate.multistep.gradients import segment_gradient
from dq_toolchain.calibrate.work.host_reads import read_on_host
from dq_toolchain.calibrate.work.seeds import hash_seed
from dq_toolchain.toolchain.console.progress import Advance
from dq_toolchain.toolchain.quant.hooks import hooks
from dq_toolchain.toolchain.quant.qparams import SMALLEST_WEIGHT_SCALE, fake_quantize, fp16_exact, weight_type
from dq_toolchain.toolchain.sampler.rollout import State
from dq_toolchain.toolchain.sampler.transfer import to_device

Scales = Mapping[str, Mapping[int, Tensor]]
"""layer -> bits -> weight scale (out,)."""


def final_errors(
    run: Trajectories, scales: Scales, probes: int, advance: Advance = lambda n=1: None
) -> dict[str, dict[int, float]]:
    """Layer -> bits -> predicted mean squared error of the final latent when this layer's weights alone are rounded.

    Its standard deviation is sqrt(2 / probes) of it. The FP32 network is left as it was.

    Args:
        scales: of the layers and widths that are wanted.
        probes: samples, one random direction each; of several processes each takes a share.
    """
    sums = {name: dict.fromkeys(widths, 0.0) for name, widths in scales.items()}
    context, elements = run.context, run.samples.start[0].numel()
    for probe in range(probes)[context.workers.share(probes)]:
        with _moved_along(context.network, scales, context.device) as moved:
            sweep(context, run.samples, probe)
        places = [(name, bits) for name, widths in moved.items() for bits in widths]
        values = [moved[name][bits] for name, bits in places]
        for (name, bits), value in zip(
            places, read_on_host(torch.stack(values), "sensitivities").tolist(), strict=True
        ):
            sums[name][bits] += value**2 / (probes * elements)
        advance(1)
    names = [(name, bits) for name, widths in sums.items() for bits in widths]
    total = context.workers.sum(torch.tensor([sums[name][bits] for name, bits in names], dtype=torch.float64)).tolist()
    for (name, bits), value in zip(names, total, strict=True):
        sums[name][bits] = value
    return sums


def sweep(context: Context, samples: Samples, probe: int, set_step: Callable[[int], None] | None = None) -> None:
    """Carry one sample's v back through a whole FP32 run: gradients of v' x[N] reach whatever requires them, step by step.

    Args:
        samples: of which probe p takes the one at p modulo their number.
        set_step: told the step of every pass, before it.
    """
    calls, index = context.table.calls, probe % len(samples)
    part = samples.select(slice(index, index + 1))
    generator = torch.Generator().manual_seed(hash_seed(context.seed, 1, probe))
    signs = to_device((torch.randint(0, 2, part.start.shape, generator=generator) * 2 - 1).float(), context.device)

    def at_the_end(k: int, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros((), device=x.device), signs if k == calls else torch.zeros_like(x)

    network, start = context.denoiser(context.network, part, set_step), State((to_device(part.start, context.device),))
    segment_gradient(context.table, network, start, 0, calls, at_the_end, "adjoint", context.noise(part))


@contextmanager
def _moved_along(network: nn.Module, scales: Scales, device: torch.device) -> Iterator[dict[str, dict[int, Tensor]]]:
    """v' J dW of every layer and width, () float64, summed up over the backward passes made inside.

    Args:
        device: where these compute. Streamed weights are on the host now, and there only while their block is at work.
    """
    weights = {name: network.get_parameter(f"{name}.weight") for name in scales}
    moved = {
        name: {bits: torch.zeros((), dtype=torch.float64, device=device) for bits in widths}
        for name, widths in scales.items()
    }

    def take(name: str, weight: Tensor) -> None:
        gradient, weight.grad = weight.grad, None
        assert gradient is not None
        for bits, scale in scales[name].items():
            change = rounded(weight.detach(), scale, bits).sub_(weight.detach())
            moved[name][bits] += torch.dot(change.flatten(), gradient.flatten())

    for weight in weights.values():
        weight.requires_grad_(True)
    handles = (
        weight.register_post_accumulate_grad_hook(lambda weight, name=name: take(name, weight))
        for name, weight in weights.items()
    )
    try:
        with hooks(handles):
            yield moved
    finally:
        for weight in weights.values():
            weight.requires_grad_(False)


def rounded(weight: Tensor, scale: Tensor, bits: int) -> Tensor:
    """The weight to the nearest integers of a width, dequantized; same shape."""
    per_channel = fp16_exact(scale, SMALLEST_WEIGHT_SCALE).view(-1, *[1] * (weight.dim() - 1))
    return fake_quantize(weight, per_channel, 0, weight_type(bits))
