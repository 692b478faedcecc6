"""One transformer block of FLUX's size, as a network of its own: seconds and memory of an iteration, and of reconstruction."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

import torch
from diffusers import DDIMScheduler
from diffusers.models.transformers.transformer_flux import FluxPosEmbed, FluxTransformerBlock
from torch import Tensor, nn

from benchmarks.common import NoCheckpoint, recipe_of
from benchmarks.gpu.network import NOWHERE, randomize
from benchmarks.gpu.record import Plan, Record
from benchmarks.gpu.watch import UNTIMED, Unvalidated, Watch, fitted, peak, reset_peak, synchronize
from dq_toolchain.calibrate.blocks.evaluations import evaluations_of
from dq_toolchain.calibrate.blocks.options import BlockBudget, BlockOptions
from dq_toolchain.calibrate.blocks.reconstruct import planned_iterations, reconstruct
from dq_toolchain.calibrate.blocks.storage import Storage
from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.data.rollouts import Rollouts
from dq_toolchain.calibrate.multistep.stages import Stage
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.calibrate.ranges.measure import choose_all, observe_rollouts
from dq_toolchain.calibrate.ranges.quantized import quantize_with
from dq_toolchain.toolchain.disk.files import write_tensors
from dq_toolchain.toolchain.models.loading import Model
from dq_toolchain.toolchain.models.own import own_config
from dq_toolchain.toolchain.recipe.sections import Recipe

STEPS, ROWS = 2, 2


@dataclass(frozen=True)
class Shape:
    """``heads`` of 128 channels; ``side`` squared picture tokens and ``texts`` text tokens."""

    heads: int
    side: int
    texts: int

    @property
    def width(self) -> int:
        return self.heads * 128


FULL, TINY = Shape(24, 64, 512), Shape(1, 4, 3)


class FluxBlock(nn.Module):
    """A block of ``heads`` heads of 128 channels each on ``side`` squared picture tokens and ``texts`` text tokens.

    The latent's channels are the block's own, so that nothing is measured but the block.
    """

    waves: Tensor
    ids: Tensor

    def __init__(self, heads: int, side: int, texts: int, channels: int = 128) -> None:
        super().__init__()
        width = heads * channels
        self.block = FluxTransformerBlock(dim=width, num_attention_heads=heads, attention_head_dim=channels)
        self.places = FluxPosEmbed(theta=10000, axes_dim=[channels // 8, 7 * channels // 16, 7 * channels // 16])
        place = torch.arange(side * side, device="cpu")
        picture = torch.stack([0 * place, place // side, place % side], dim=1)
        self.register_buffer("ids", torch.cat([torch.zeros(texts, 3, device="cpu"), picture]))
        self.register_buffer("waves", torch.logspace(0, -4, width // 2, device="cpu"))

    def forward(self, sample: Tensor, timestep: Tensor, texts: Tensor) -> Tensor:
        """sample (B, width, side, side), timestep (B,), texts (B, T, width) -> as sample."""
        angle = timestep[:, None] * self.waves
        state, hidden = self.block(
            hidden_states=sample.flatten(2).transpose(1, 2),
            encoder_hidden_states=texts,
            temb=torch.cat([angle.sin(), angle.cos()], dim=1),
            image_rotary_emb=self.places(self.ids),
        )
        out: Tensor = hidden + state.mean(1, keepdim=True)  # so that all layers get a gradient
        return out.transpose(1, 2).reshape(sample.shape)


def flux_model(shape: Shape, device: str) -> Model:
    """The block with random weights."""
    with torch.device("meta"):  # parameters only: buffers say where they are
        network = FluxBlock(shape.heads, shape.side, shape.texts)
    randomize(network, device)
    network.eval().requires_grad_(False)
    config = own_config(
        network, (shape.width, shape.side, shape.side), {"texts": torch.zeros(1, shape.texts, shape.width)}
    )
    scheduler = DDIMScheduler(clip_sample=False)
    described = {k: v for k, v in scheduler.config.items() if k != "_use_default_values"} | {
        "_class_name": "DDIMScheduler"
    }
    return Model("FLUX block", "0" * 64, config, described, network, NOWHERE, module=network)


def run(record: Record, plan: Plan) -> None:
    shape, timed = (TINY, 1) if plan.tiny else (FULL, 3)
    rows = plan.scratch / "texts.safetensors"
    write_tensors(
        rows, {"cond.texts": torch.randn(2, shape.texts, shape.width, generator=torch.Generator().manual_seed(0))}
    )
    recipe = recipe_of(
        {
            "model": {"path": NOWHERE},
            "conditioning": {"file": rows},
            "sampler": {"steps": STEPS},
            "calibrate": {"samples": 3, "batch": 1, "rounding": "closed-form+learned"},
            "run": {"device": plan.device},
        }
    )
    begin = time.perf_counter()
    context = setup(recipe, given=flux_model(shape, plan.device))
    record.value("seconds_to_set_up", time.perf_counter() - begin)
    record.value("parameters_m", sum(p.numel() for p in context.network.parameters()) / 1e6)
    targets, histograms = observe_rollouts(context)
    chosen = choose_all(context, histograms, recipe.calibrate)
    _gradient(record, context, recipe, targets, chosen, timed)
    _reconstruction(record, context, recipe, targets, chosen, timed)


def _gradient(
    record: Record, context: Context, recipe: Recipe, targets: Rollouts, chosen: tuple[Tensor, Tensor], timed: int
) -> None:
    """A single-step iteration on one sample."""
    network = quantize_with(context, *chosen, recipe)
    problem = Unvalidated(context=context, targets=targets, validation=1, settings=recipe.calibrate)
    stage = Stage(name="single-step", iterations=UNTIMED + timed, horizon=1, window=(0, STEPS), learned="rounding",
                  inherited=False, gradient="adjoint")  # fmt: skip
    reset_peak(context.device)
    found = fitted(problem, network, stage, Watch(context.device, timed))
    record.row("Iterations", work="single-step, 1 sample", **asdict(found))


def _reconstruction(
    record: Record, context: Context, recipe: Recipe, targets: Rollouts, chosen: tuple[Tensor, Tensor], timed: int
) -> None:
    """The rounding of every unit, which in this block is every layer, on ROWS rows."""
    network = quantize_with(context, *chosen, recipe)
    step, sample = torch.arange(ROWS) % STEPS, torch.arange(ROWS) % 2
    rows = evaluations_of(context.table, targets, context.samples, context.guidance, step, sample)
    budget, options = BlockBudget(UNTIMED + timed, 0, ROWS), BlockOptions()
    reset_peak(context.device)
    begin = time.perf_counter()
    reconstruct(
        network, context.network, rows, options, budget, 0, NoCheckpoint(), storage=Storage(context.rollout_batch)
    )
    synchronize(context.device)
    seconds, (allocated, reserved) = time.perf_counter() - begin, peak(context.device)
    record.row("Reconstruction", rows=ROWS, iterations=planned_iterations(network, options, budget), seconds=seconds,
               allocated_gb=allocated / 1e9, reserved_gb=reserved / 1e9)  # fmt: skip
