"""Second stage: the text encoder learns to read, before anything is drawn, as CLIP has learned before Stable Diffusion.

From its output at the end token and at every padding token after it, linear heads must tell the whole scene. So what a
caption says stands plainly in most of the tokens that the UNet attends to, and the UNet need not find it by its own loss.
"""

from __future__ import annotations

import math
import random
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextModel

from scripts.models.scenes.captions import caption
from scripts.models.scenes.checkpoint import Averaged, Checkpoint
from scripts.models.scenes.networks import END, LENGTH, WIDTH
from scripts.models.scenes.text import Vocabulary
from scripts.models.scenes.world import ALONE, COLOURS, PLACES, Scene, any_scene

BATCH, LR, UNKNOWN = 64, 2e-3, 0.02
SHORT, LONG_EVERY = 32, 4
"""Captions are cut to that many tokens, all but every fourth batch: a caption and its end fit, and it is cheaper."""
KINDS = ("background", "place", "digit", "colour", "size", "digit 2", "colour 2", "size 2")
CLASSES = (len(COLOURS), len(PLACES) + 2, *(10, len(COLOURS), len(ALONE)) * 2)
NOT_SAID = -100


def facts(scene: Scene) -> list[int]:
    """What is in a scene, a class for each of ``KINDS``; ``NOT_SAID`` for a second digit that is not there."""
    colours, sizes, places = list(COLOURS), list(ALONE), [*PLACES, "beside", "stacked"]
    told = [colours.index(scene.background), places.index(scene.place)]
    for thing in scene.things:
        told += [thing.digit, colours.index(thing.colour), sizes.index(thing.size)]
    return told + [NOT_SAID] * (len(KINDS) - len(told))


def train_reading(
    text_encoder: CLIPTextModel, vocabulary: Vocabulary, minutes: float, seed: int, checkpoint: Checkpoint
) -> CLIPTextModel:
    """Train for some minutes; returns the averaged encoder."""
    torch.manual_seed(seed)
    heads = nn.Linear(WIDTH, sum(CLASSES))
    run = Averaged([text_encoder.train(), heads], LR)
    done, spent = checkpoint.restore(run)
    torch.manual_seed(seed + done)
    draw, start = random.Random(seed + done), time.time() - spent
    while (elapsed := time.time() - start) < 60 * minutes:
        scenes = [any_scene(draw) for _ in range(BATCH)]
        captions = [caption(scene, draw) for scene in scenes]
        length = LENGTH if done % LONG_EVERY == 0 else SHORT
        rows = vocabulary.rows(captions, UNKNOWN)[:, :length]
        after = rows == vocabulary.row[END]
        logits = heads(text_encoder(rows).last_hidden_state[after])
        told = torch.tensor([facts(scene) for scene in scenes])[after.nonzero()[:, 0]]
        losses = _losses(logits, told)
        share = elapsed / (60 * minutes)
        run.step(losses.sum(), LR * min(1.0, (done + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share))))
        done += 1
        if done % 100 == 0:
            left = minutes - (time.time() - start) / 60
            wrong = ", ".join(f"{kind} {float(loss):.2f}" for kind, loss in zip(KINDS, losses, strict=True))
            print(f"reading {done}: {wrong}; left {left:.1f} min", flush=True)
            checkpoint.save(run, done, time.time() - start)
    checkpoint.save(run, done, time.time() - start)
    averaged: CLIPTextModel = run.averages[0]  # type: ignore[assignment]
    return averaged


def _losses(logits: Tensor, told: Tensor) -> Tensor:
    """(kinds,): cross entropy of each kind of fact, in nats."""
    parts = logits.split(CLASSES, 1)
    return torch.stack([F.cross_entropy(part, told[:, kind]) for kind, part in enumerate(parts)])
