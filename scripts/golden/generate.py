"""Golden vectors for `generate`: whole pipelines with made-up parts, what these answer, and the pictures that follow.

    python -m scripts.golden.generate [--out runtime_samples/golden/generate]

Tokens are those of transformers, noise is torch's, and the sampler is the host's own.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from PIL import Image
from torch import Tensor
from transformers import CLIPTokenizer

from dq_toolchain.toolchain.disk.files import seal, sha256, write_bytes, write_tensors
from dq_toolchain.toolchain.formats.bundle import Bundle, Port
from dq_toolchain.toolchain.formats.reference import FILE, Reference
from dq_toolchain.toolchain.sampler.conditioning import Conditioning
from dq_toolchain.toolchain.sampler.probe import probe
from dq_toolchain.toolchain.sampler.rollout import rollout
from dq_toolchain.toolchain.sampler.step_groups import even_step_groups
from dq_toolchain.toolchain.verdict.limits import limits_for

OUT = Path("runtime_samples/golden/generate")
SIDE, CHANNELS, CALLS, LENGTH = 6, 4, 4, 16
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
WORDS = ["a", "red", "ball", "on", "grass", "blue", "dog", "photo", "of", "the", "high", "quality", "cat"]


@dataclass(frozen=True)
class Case:
    """One pipeline and what it is asked. ``encoders``: by name, its tokenizer and outputs; ``constants``: by input."""

    scheduler: Any
    guidance: float
    encoders: Mapping[str, tuple[str, tuple[str, ...]]]
    conditioning: Mapping[str, Any]
    prompt: str
    negative: str = ""
    seed: int = 7
    eta: float | None = None
    pads: Mapping[str, str] = field(default_factory=lambda: {"tokenizer": END})
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    zeros: bool = False
    channels: int = 3


WIDTHS = {"text_encoder": 5, "text_encoder_2": 7, "text_encoder_3": 9}
HIDDEN = ("hidden",)
CASES = {
    "guided": Case(
        DDIMScheduler(clip_sample=False), 2.5, {"text_encoder": ("tokenizer", HIDDEN)},
        {"encoder_hidden_states": [["text_encoder.hidden"]]},
        "A photo of a RED ball\u00a0on the grass, it's na\u0131\u0308ve!", "blurry dog"),
    "two-encoders": Case(
        EulerDiscreteScheduler(), 5.0,
        {"text_encoder": ("tokenizer", HIDDEN), "text_encoder_2": ("tokenizer_2", ("hidden", "pooled"))},
        {"encoder_hidden_states": [["text_encoder.hidden", "text_encoder_2.hidden"]], "text_embeds": [["text_encoder_2.pooled"]]},
        "the blue dog " + "high quality photo of the red cat " * 3, seed=2**32 + 7, pads={"tokenizer": END, "tokenizer_2": "!"},
        constants={"time_ids": torch.tensor([[512.0, 512.0, 0.0, 0.0, 512.0, 512.0]])}, zeros=True),
    "noise-in-each-step": Case(
        DDIMScheduler(clip_sample=False), 1.0,
        {"text_encoder": ("tokenizer", HIDDEN), "text_encoder_2": ("tokenizer_2", HIDDEN)},
        {"encoder_hidden_states": [["text_encoder.hidden"], ["text_encoder_2.hidden"]],
         "encoder_attention_mask": [["tokenizer.mask"], ["tokenizer_2.mask"]]},
        "blue \U0001f600 cat", eta=0.7, pads={"tokenizer": END, "tokenizer_2": "!"}, channels=1),
}  # fmt: skip


def tokenizer_of(pad: str) -> CLIPTokenizer:
    """CLIP's kind with a vocabulary of bytes and the words above: small, and every text has tokens."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts[:2] = ["".join(parts[:2])]
    merges = list(dict.fromkeys(merges))
    tokens = [
        *letters,
        *(letter + "</w>" for letter in letters),
        *dict.fromkeys("".join(pair) for pair in merges),
        BEGIN,
        END,
    ]
    return CLIPTokenizer(
        vocab={token: i for i, token in enumerate(dict.fromkeys(tokens))}, merges=merges, pad_token=pad
    )


class Parts:
    """Answers from formulas, in float64 and rounded, and keeps what it was asked and what it answered."""

    def __init__(self, case: Case) -> None:
        self.case, self.kept = case, dict[str, list[Tensor]]()

    def _keep(self, name: str, tensor: Tensor) -> Tensor:
        self.kept.setdefault(name, []).append(tensor)
        return tensor

    def encoder(self, name: str, ids: Tensor) -> dict[str, Tensor]:
        """ids (1, T) -> hidden (1, T, D), pooled (1, D)."""
        self._keep(f"{name}.ids", ids)
        axis = torch.arange(WIDTHS[name], dtype=torch.float64)
        hidden = torch.sin(ids.double()[..., None] * 0.37 + axis + len(name)).cumsum(1) / 4
        answers = {"hidden": hidden.float(), "pooled": hidden.mean(1).float()}
        return {f"{name}.{key}": self._keep(f"{name}.{key}", answers[key]) for key in self.case.encoders[name][1]}

    def network(self, k: int, x: Tensor, time: float, conditioning: Mapping[str, Tensor]) -> Tensor:
        """One execution: (1, C, h, w) -> the same shape."""
        self._keep("inputs", x)
        self._keep("timesteps", torch.tensor([time]))
        total = torch.zeros((), dtype=torch.float64)
        for name in sorted(conditioning):
            values = self._keep(f"inputs.{name}", conditioning[name]).double().flatten()
            total = total + (values * torch.cos(torch.arange(len(values)).double())).mean()
        out = torch.tanh(0.7 * x.roll(1, -1).double() + total) * (0.5 + time / 2000) + 0.01 * k
        return self._keep("outputs", out.float())

    def decoder(self, latents: Tensor) -> Tensor:
        """(1, C, h, w) -> (1, channels, 2 h, 2 w), some of it beyond [-1, 1]."""
        self._keep("decoder.latents", latents)
        big = latents.double().repeat_interleave(2, -1).repeat_interleave(2, -2)
        return self._keep("decoder.picture", (big[:, : self.case.channels] * 0.9 + 0.1 * big[:, -1:]).float())


def conditioning_of(
    case: Case, parts: Parts, tokenizers: Mapping[str, CLIPTokenizer], prompt: str
) -> dict[str, Tensor]:
    """What the network is given for a prompt."""
    named: dict[str, Tensor] = {}
    for name, tokenizer in tokenizers.items():
        found = tokenizer(prompt, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
        named[f"{name}.ids"], named[f"{name}.mask"] = found.input_ids, found.attention_mask.float()
    for name, (tokenizer, _) in case.encoders.items():
        named |= parts.encoder(name, named[f"{tokenizer}.ids"])
    joined = {}
    for name, rows in case.conditioning.items():
        tensors = [torch.cat([named[one] for one in row], -1) for row in rows]
        if tensors[0].dim() == 3:
            widest = max(t.shape[-1] for t in tensors)
            tensors = [torch.nn.functional.pad(t, (0, widest - t.shape[-1])) for t in tensors]
        joined[name] = torch.cat(tensors, 1)
    return joined


def write_case(case: Case, folder: Path) -> None:
    """``folder``/bundle, replay.safetensors, arguments.json, and expected: latents.safetensors and picture.png."""
    shutil.rmtree(folder, ignore_errors=True)
    parts, tokenizers = Parts(case), {name: tokenizer_of(pad) for name, pad in case.pads.items()}
    table = probe(case.scheduler, CALLS) if case.eta is None else probe(case.scheduler, CALLS, eta=case.eta)
    cond = conditioning_of(case, parts, tokenizers, case.prompt) | dict(case.constants)
    uncond = cond
    if case.guidance != 1.0 and case.zeros:
        uncond = {name: torch.zeros_like(cond[name]) for name in case.conditioning} | dict(case.constants)
    elif case.guidance != 1.0:
        uncond = conditioning_of(case, parts, tokenizers, case.negative) | dict(case.constants)
    generator, shape = torch.Generator("cpu").manual_seed(case.seed), (1, CHANNELS, SIDE, SIDE)
    start = torch.randn(shape, generator=generator) * table.init_noise_sigma
    noise = torch.stack([torch.randn(shape, generator=generator) for _ in range(CALLS)]) if table.stochastic else None

    def network(x: Tensor, k: int) -> Tensor:
        x = table.input_scale[k] * x
        out = parts.network(k, x, table.timesteps[k], cond)
        if case.guidance == 1.0:
            return out
        other = parts.network(k, x, table.timesteps[k], uncond)
        return other + case.guidance * (out - other)

    run = rollout(table, network, start, noise=noise)
    picture = parts.decoder(run[-1])
    write_tensors(folder / "replay.safetensors", {name: torch.cat(rows) for name, rows in parts.kept.items()})
    write_tensors(folder / "expected" / "latents.safetensors", {"latents": run[-1]})
    write_picture(folder / "expected" / "picture.png", picture)
    arguments = ["--prompt", case.prompt, "--seed", str(case.seed)]
    arguments += ["--negative-prompt", case.negative] if case.negative else []
    write_bytes(folder / "arguments.json", (json.dumps(arguments) + "\n").encode())
    _write_bundle(case, folder / "bundle", tokenizers, (cond, uncond), run, noise)


def write_picture(path: Path, picture: Tensor) -> None:
    """As diffusers' image processor does: (1, C, H, W) in [-1, 1]."""
    values = (picture * 0.5 + 0.5).clamp(0, 1)[0].permute(1, 2, 0).numpy()
    Image.fromarray((values * 255).round().astype(np.uint8).squeeze()).save(path)


def _write_bundle(
    case: Case,
    folder: Path,
    tokenizers: Mapping[str, CLIPTokenizer],
    conditioning: tuple[dict[str, Tensor], dict[str, Tensor]],
    run: Tensor,
    noise: Tensor | None,
) -> None:
    cond, uncond = conditioning
    guided = case.guidance != 1.0
    reference = Reference(
        start=run[0].clone(), step_noise=noise, fp32_latents=run,
        conditioning=Conditioning(cond, {name: value.clone() for name, value in uncond.items()} if guided else {}),
        simulation_latents=run.clone(), simulation_outputs=run[1:].clone(),
        fp32_outputs_at_simulation=run[1:].clone())  # fmt: skip
    reference.save(folder / FILE)
    write_bytes(folder / "model.bin", b"made up\n")
    for name in (*case.encoders, "decoder"):
        write_bytes(folder / "parts" / f"{name}.bin", b"made up\n")
    if case.constants:
        rows = {
            f"{half}.{name}": value.clone() for half in ("cond", "uncond") for name, value in case.constants.items()
        }
        write_tensors(folder / "parts" / "constants.safetensors", rows)
    for name, tokenizer in tokenizers.items():
        (folder / "parts" / name).mkdir()
        tokenizer.backend_tokenizer.save(str(folder / "parts" / name / "tokenizer.json"), pretty=False)
    write_bytes(folder / "pipeline.json", (json.dumps(seal(_pipeline(case, tokenizers)), indent=1) + "\n").encode())
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    shape = tuple(run.shape[1:])
    ports = [Port("sample", "float32", shape), Port("timestep", "float32", (1,))]
    ports += [Port(name, "float32", tuple(value.shape)) for name, value in cond.items()]
    table = probe(case.scheduler, CALLS) if case.eta is None else probe(case.scheduler, CALLS, eta=case.eta)
    Bundle(
        target="golden", form="made-up", model_id="made-up", weight_hash="0" * 64, versions={}, program="model.bin",
        inputs=tuple(ports), outputs=(Port("output", "float32", shape),), step_groups=even_step_groups(CALLS, 2),
        methods=("forward",), table=table, guidance=case.guidance, limits=limits_for(reference),
        operations=(), sites=(), sizes={name: (folder / name).stat().st_size for name in names},
        files={name: sha256(folder / name) for name in names}).save(folder)  # fmt: skip


def _pipeline(case: Case, tokenizers: Mapping[str, CLIPTokenizer]) -> dict[str, Any]:
    return {
        "schema": "dq-toolchain/pipeline",
        "schema_version": 1,
        "pipeline": "MadeUpPipeline",
        "tokenizers": [
            {"name": name, "kind": "clip", "folder": f"parts/{name}", "length": LENGTH, "pad": t.pad_token_id,
             "begin": t.bos_token_id, "end": t.eos_token_id} for name, t in tokenizers.items()],
        "encoders": [
            {"name": name, "tokenizer": tokenizer, "program": f"parts/{name}.bin", "mask": False, "outputs": list(outputs)}
            for name, (tokenizer, outputs) in case.encoders.items()],
        "conditioning": dict(case.conditioning),
        "constants": "parts/constants.safetensors" if case.constants else None,
        "zeros_without_negative": case.zeros,
        "decoder": {"program": "parts/decoder.bin", "channels": case.channels, "height": 2 * SIDE, "width": 2 * SIDE},
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out
    for name, case in CASES.items():
        write_case(case, out / name)
