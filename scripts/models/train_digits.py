"""Train the embedded reference model: a class-conditional v-prediction UNet2DModel for 28x28 digits.

    python -m scripts.models.train_digits --data mnist.npz --epochs 10
    python -m scripts.models.train_digits --data mnist.npz --epochs 5 --resume --time-power 0.6 --lr 1e-3 --seed 1
    python -m scripts.models.train_digits --data mnist.npz --epochs 8 --resume --time-power 0.6 --lr 1.2e-3 --seed 2
    python -m scripts.models.train_digits --data mnist.npz --epochs 5 --resume --time-power 0.7 --lr 1.2e-3 --seed 3 --batch 64

gave the weights that ship. Each command goes on from the weights of the one before; from the second on, noisy
timesteps are drawn more often: there the class is decided.

Writes a diffusers folder (unet/, scheduler/), the loss curve's end and a sample grid. Label 10 means "no class":
10 % of the labels are replaced by it, so that classifier-free guidance works.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DModel
from torch import Tensor

from scripts.models.diffusion_training import Run, Training, draw_samples, save_grid, save_model
from scripts.models.digit_data import load_digits

NULL_LABEL = 10
GRID_STEPS, GRID_GUIDANCE = 20, 3.0


def build_network() -> UNet2DModel:
    return UNet2DModel(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(32, 64, 64),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=32,
        num_class_embeds=NULL_LABEL + 1,
    )


def build_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        timestep_spacing="trailing",
    )


def sample_grid(unet: UNet2DModel, guidance: float, rows: int, steps: int = GRID_STEPS, seed: int = 0) -> Tensor:
    """(rows*10, 1, 28, 28) samples in [-1, 1]; column k holds class k."""
    return draw_samples(unet, build_scheduler(), rows, steps, seed, guidance, NULL_LABEL)


def save(run: Run, out: Path, resumed: bool) -> None:
    """Write the model's folder; a run that goes on from weights is added to those in training.json."""
    plain, s, record = run.averaged(), run.settings, out / "training.json"
    save_model(plain, build_scheduler(), out)
    earlier = json.loads(record.read_text())["runs"] if resumed and record.is_file() else []
    this = {
        "optimizer_steps": run.done,
        "batch": s.batch,
        "epochs": s.epochs,
        "lr": s.lr,
        "seed": s.seed,
        "time_power": s.time_power,
        "train_loss_running_mean": run.loss,
    }
    summary = {
        "parameters": sum(p.numel() for p in plain.parameters()),
        "runs": [*(other for other in earlier if other["seed"] != s.seed), this],
    }
    record.write_text(json.dumps(summary, indent=2) + "\n")
    save_grid(sample_grid(plain, GRID_GUIDANCE, rows=4), NULL_LABEL, out / "samples.png")


def main(args: argparse.Namespace) -> None:
    settings = Training(
        args.epochs, args.batch, args.lr, args.seed, NULL_LABEL, time_power=args.time_power, compile=args.compile
    )
    torch.manual_seed(settings.seed)
    unet = UNet2DModel.from_pretrained(args.out / "unet") if args.resume else build_network()
    run = Run(unet, build_scheduler(), settings, *load_digits(args.data, "train"))
    run.train(lambda run: save(run, args.out, args.resume))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help=".npz with train, train_y, test, test_y; default: download MNIST")
    parser.add_argument("--out", type=Path, default=Path("toolchain/models/digits"))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--resume", action="store_true", help="go on from the weights in --out")
    parser.add_argument(
        "--time-power", type=float, default=1.0, help="timestep = uniform ** power; below 1 favours noise"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    main(parser.parse_args())
