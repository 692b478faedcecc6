"""Train the small text-to-image model: a StableDiffusionPipeline that draws coloured digits as a caption says.

    python -m scripts.models.scenes --mnist mnist.npz --out models/scenes

gave the weights in models/scenes, on one CPU core: an autoencoder; a text encoder that learns to
read; a UNet on the latents of the one with the words of the other.
A run that was killed goes on from its checkpoints in --work. The tokenizer is CLIP's and lies in OUT/tokenizer.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file
from torch import Tensor

from dq_toolchain.toolchain.disk.files import write_json, write_tensors
from dq_toolchain.toolchain.verdict.features import ClassifierFeatures
from scripts.models.diffusion_training import save_grid
from scripts.models.scenes.autoencoder import decode, encode, train_autoencoder
from scripts.models.scenes.checkpoint import Checkpoint
from scripts.models.scenes.data import as_float, make_pictures, make_scenes
from scripts.models.scenes.diffusion import BATCH, Drawer, Examples, train_diffusion
from scripts.models.scenes.folder import read_tokenizer, save_folder
from scripts.models.scenes.held_out import held_out, shares
from scripts.models.scenes.networks import build_autoencoder, build_scheduler, build_unet
from scripts.models.scenes.reading import train_reading
from scripts.models.scenes.text import Vocabulary

FIRST_PICTURES, PICTURES = 40_000, 30_000
"""Of the two stages: with all handwritings, and with those near the mean."""
FIRST_SHARE, SECOND_SHARE = 0.125, 0.081
"""Of the minutes: the autoencoder's, and the text encoder's; the UNet has the rest."""
STEPS, GUIDANCE = 12, 3.0


def psnr(a: Tensor, b: Tensor) -> float:
    """In dB, of pictures in [-1, 1]."""
    return float(10 * torch.log10(4 / (a - b).square().mean()))


def make_autoencoder(args: argparse.Namespace, unseen: Tensor) -> AutoencoderKL:
    """Trained now, or by an earlier call that was killed later."""
    done = args.work / "vae"
    if (done / "config.json").is_file():
        earlier: AutoencoderKL = AutoencoderKL.from_pretrained(done)
        return earlier.eval()

    def look(vae: AutoencoderKL) -> None:
        again = decode(vae, encode(vae, unseen) * vae.config.scaling_factor)
        print(f"autoencoder: {psnr(again, as_float(unseen)):.2f} dB on pictures it never saw", flush=True)
        save_grid(torch.stack([as_float(unseen), again], 1).flatten(0, 1), 8, args.work / "autoencoder.png", 2)

    _, pictures = make_pictures(args.mnist, FIRST_PICTURES, args.seed)
    torch.manual_seed(args.seed)
    minutes, checkpoint = FIRST_SHARE * args.minutes, Checkpoint(args.work / "autoencoder.safetensors")
    vae = train_autoencoder(build_autoencoder(), pictures, minutes, args.seed, checkpoint, look)
    vae.save_pretrained(done)
    return vae


def make_examples(args: argparse.Namespace, vae: AutoencoderKL) -> Examples:
    """Encoded now, or by an earlier call; scenes alone are made in no time."""
    file = args.work / "latents.safetensors"
    if file.is_file():
        return Examples(make_scenes(PICTURES, args.seed), load_file(file)["latents"])
    scenes, pictures = make_pictures(args.mnist, PICTURES, args.seed, typical=True)
    latents = encode(vae, pictures) * vae.config.scaling_factor
    write_tensors(file, {"latents": latents})
    return Examples(scenes, latents)


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    _, unseen = make_pictures(args.mnist, 256, args.seed + 1, split="test")
    vae = make_autoencoder(args, unseen[:16])
    reached = psnr(decode(vae, encode(vae, unseen) * vae.config.scaling_factor), as_float(unseen))
    print(f"autoencoder: {reached:.2f} dB, scaling factor {vae.config.scaling_factor}", flush=True)
    examples = make_examples(args, vae)

    asked, prompts = held_out(64)
    classifier = ClassifierFeatures()

    def look(drawer: Drawer, done: int) -> None:
        drawn = decode(vae, drawer.latents(prompts, STEPS, GUIDANCE, args.seed))
        print(f"diffusion {done}: {shares(asked, drawn, classifier)}", flush=True)
        save_grid(drawn, 8, args.work / "samples.png", 2)
        save_folder(drawer, vae, args.out)

    torch.manual_seed(args.seed)
    vocabulary = Vocabulary(read_tokenizer(args.out / "tokenizer"))
    reading = Checkpoint(args.work / "reading.safetensors")
    minutes = SECOND_SHARE * args.minutes
    text_encoder = train_reading(vocabulary.small_encoder(), vocabulary, minutes, args.seed, reading)
    drawer = Drawer(vocabulary, build_scheduler(), text_encoder, build_unet())
    checkpoint = Checkpoint(args.work / "diffusion.safetensors")
    minutes = (1 - FIRST_SHARE - SECOND_SHARE) * args.minutes
    steps, loss = train_diffusion(drawer, examples, minutes, args.seed, checkpoint, look)
    record = {
        "minutes": args.minutes,
        "threads": args.threads,
        "seed": args.seed,
        "pictures": [FIRST_PICTURES, PICTURES],
        "autoencoder_psnr_db": round(reached, 2),
        "diffusion_steps": steps,
        "batch": BATCH,
        "diffusion_loss": loss,
        "words": len(vocabulary.tokens) - 2,
        "parameters": {
            "text_encoder": sum(p.numel() for p in drawer.text_encoder.parameters()),
            "unet": sum(p.numel() for p in drawer.unet.parameters()),
            "vae": sum(p.numel() for p in vae.parameters()),
        },
    }
    write_json(args.out / "training.json", record)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, help=".npz with train, train_y, test, test_y; default: download MNIST")
    parser.add_argument("--out", type=Path, default=Path("models/scenes"))
    parser.add_argument("--work", type=Path, default=Path("build/scenes"), help="where a killed run goes on")
    parser.add_argument("--minutes", type=float, default=102.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
