"""Golden vectors for `generate`: whole pipelines with made-up parts, what these answer, and the pictures that follow.

    python -m scripts.golden.generate [--out runtime_samples/golden/generate]

Tokens are those of transformers, noise is torch's, and the sampler is the host's own.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, HeunDiscreteScheduler
from PIL import Image
from torch import Tensor
from transformers import CLIPTokenizer

from dq_toolchain.toolchain.disk.files import seal, sha256, write_bytes, write_tensors
from dq_toolchain.toolchain.formats.bundle import Bundle, OtherSampling, Port
from dq_toolchain.toolchain.formats.reference import FILE, Reference
from dq_toolchain.toolchain.sampler.conditioning import Conditioning
from dq_toolchain.toolchain.sampler.probe import probe
from dq_toolchain.toolchain.sampler.rollout import rollout
from dq_toolchain.toolchain.sampler.samplings import Sampling, step_groups_at
from dq_toolchain.toolchain.sampler.start_probe import probe_starts
from dq_toolchain.toolchain.sampler.step_groups import even_step_groups
from dq_toolchain.toolchain.sampler.table import SamplerTable
from dq_toolchain.toolchain.verdict.limits import limits_for
from scripts.golden.images import FILE as IMAGE
from scripts.golden.images import FromImage
from scripts.golden.made_up import CHANNELS, END, Parts, tokenizer_of

OUT = Path("runtime_samples/golden/generate")
SIDE, STEPS, LENGTH = 6, 4, 16


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
    image: FromImage | None = None
    other_steps: int | None = None

    @property
    def tables(self) -> dict[int, SamplerTable]:
        """By step count; the calibrated one first."""
        counts = (STEPS, *(() if self.other_steps is None else (self.other_steps,)))
        return {steps: probe(self.scheduler, steps, eta=self.eta or 0.0) for steps in counts}

    @property
    def steps(self) -> int:
        """That the case runs."""
        return self.other_steps or STEPS


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
ONE: dict[str, Any] = {
    "encoders": {"text_encoder": ("tokenizer", HIDDEN)},
    "conditioning": {"encoder_hidden_states": [["text_encoder.hidden"]]},
}
IMAGE_CASES = {
    "image": Case(  # a solver that looks back: it begins with a table of its own
        DPMSolverMultistepScheduler(), 2.5, **ONE, prompt="a red ball", negative="dog",
        image=FromImage(0.6, "up", "RGBA", deviates=True)),
    "image-noise-in-each-step": Case(
        DDIMScheduler(clip_sample=False), 1.0, **ONE, prompt="the grass", eta=0.7,
        image=FromImage(0.6, "down", "L", deviates=False)),
    "image-other-steps": Case(  # two calls per step
        HeunDiscreteScheduler(), 1.0, **ONE, prompt="a cat", other_steps=6,
        image=FromImage(0.5, "up", "RGB", deviates=True)),
}  # fmt: skip


def _parts(case: Case) -> Parts:
    outputs = {name: wanted for name, (_, wanted) in case.encoders.items()}
    return Parts(outputs, case.channels, () if case.image is None else case.image.outputs)


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
    parts, tokenizers = _parts(case), {name: tokenizer_of(pad) for name, pad in case.pads.items()}
    cond = conditioning_of(case, parts, tokenizers, case.prompt) | dict(case.constants)
    uncond = cond
    if case.guidance != 1.0 and case.zeros:
        uncond = {name: torch.zeros_like(cond[name]) for name in case.conditioning} | dict(case.constants)
    elif case.guidance != 1.0:
        uncond = conditioning_of(case, parts, tokenizers, case.negative) | dict(case.constants)
    run, _ = _sampled(case, parts, (cond, uncond), folder / IMAGE)
    picture = parts.decoder(run[-1])
    write_tensors(folder / "replay.safetensors", {name: torch.cat(rows) for name, rows in parts.kept.items()})
    write_tensors(folder / "expected" / "latents.safetensors", {"latents": run[-1]})
    write_picture(folder / "expected" / "picture.png", picture)
    arguments = ["--prompt", case.prompt, "--seed", str(case.seed)]
    arguments += ["--negative-prompt", case.negative] if case.negative else []
    arguments += [] if case.image is None else ["--strength", str(case.image.strength)]
    arguments += [] if case.other_steps is None else ["--steps", str(case.other_steps)]
    write_bytes(folder / "arguments.json", (json.dumps(arguments) + "\n").encode())
    _write_bundle(case, folder / "bundle", tokenizers, (cond, uncond))


def _sampled(
    case: Case,
    parts: Parts,
    conditioning: tuple[dict[str, Tensor], dict[str, Tensor]],
    image: Path,
    whole: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Latents of every call, and the noise of each; ``whole``: from noise, though the case begins with a picture."""
    table, (cond, uncond), first = case.tables[case.steps], conditioning, 0
    generator, shape = torch.Generator("cpu").manual_seed(case.seed), (1, CHANNELS, SIDE, SIDE)

    def network(x: Tensor, k: int) -> Tensor:
        x = table.input_scale[k] * x
        out = parts.network(k, x, table.timesteps[k], cond)
        if case.guidance == 1.0:
            return out
        other = parts.network(k, x, table.timesteps[k], uncond)
        return other + case.guidance * (out - other)

    if case.image is None or whole:
        start, own = torch.randn(shape, generator=generator) * table.init_noise_sigma, table
    else:
        begin = case.image.start(probe_starts(case.scheduler, case.steps, table, eta=case.eta or 0.0))
        first, own = begin.call, begin.remaining(table)
        found = parts.vae_encoder(case.image.write_image(image, 2 * SIDE))
        latents = found["mean"]
        if "deviation" in found:
            latents = latents + found["deviation"] * torch.randn(shape, generator=generator)
        start = begin.signal * latents + begin.noise * torch.randn(shape, generator=generator)
    noise = None
    if own.stochastic:
        noise = torch.stack([torch.randn(shape, generator=generator) for _ in range(own.calls)])
    return rollout(own, lambda x, j: network(x, first + j), start, noise=noise), noise


def write_picture(path: Path, picture: Tensor) -> None:
    """As diffusers' image processor does: (1, C, H, W) in [-1, 1]."""
    values = (picture * 0.5 + 0.5).clamp(0, 1)[0].permute(1, 2, 0).numpy()
    Image.fromarray((values * 255).round().astype(np.uint8).squeeze()).save(path)


def _write_bundle(
    case: Case,
    folder: Path,
    tokenizers: Mapping[str, CLIPTokenizer],
    conditioning: tuple[dict[str, Tensor], dict[str, Tensor]],
) -> None:
    own, *others = case.tables
    reference, limits = _reference(replace(case, other_steps=None), conditioning, folder / FILE)
    samplings = []
    groups = even_step_groups(case.tables[own].calls, 2)
    for steps in others:
        table = case.tables[steps]
        timesteps = step_groups_at(table.timesteps, case.tables[own].timesteps, groups)
        sampling = Sampling(steps, case.guidance, table, timesteps)
        _, judged = _reference(case, conditioning, folder / sampling.file)
        samplings.append(OtherSampling(sampling, sampling.file, judged))
    write_bytes(folder / "model.bin", b"made up\n")
    for name in (*case.encoders, "decoder", *(() if case.image is None else ("vae_encoder",))):
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
    shape, (cond, _) = tuple(reference.start.shape), conditioning
    ports = [Port("sample", "float32", shape), Port("timestep", "float32", (1,))]
    ports += [Port(name, "float32", tuple(value.shape)) for name, value in cond.items()]
    Bundle(
        target="golden", form="made-up", model_id="made-up", weight_hash="0" * 64, versions={}, program="model.bin",
        inputs=tuple(ports), outputs=(Port("output", "float32", shape),), step_groups=groups,
        methods=("forward",), table=case.tables[own], guidance=case.guidance, limits=limits,
        operations=(), sites=(), sizes={name: (folder / name).stat().st_size for name in names},
        files={name: sha256(folder / name) for name in names},
        steps=own if samplings else None, samplings=tuple(samplings)).save(folder)  # fmt: skip


def _reference(
    case: Case, conditioning: tuple[dict[str, Tensor], dict[str, Tensor]], file: Path
) -> tuple[Reference, Mapping[str, Any]]:
    """Write a run from noise as a bundle's held-out rollout."""
    (cond, uncond), guided = conditioning, case.guidance != 1.0
    run, noise = _sampled(case, _parts(case), conditioning, file, whole=True)
    reference = Reference(
        start=run[0].clone(), step_noise=noise, fp32_latents=run,
        conditioning=Conditioning(cond, {name: value.clone() for name, value in uncond.items()} if guided else {}),
        simulation_latents=run.clone(), simulation_outputs=run[1:].clone(),
        fp32_outputs_at_simulation=run[1:].clone())  # fmt: skip
    reference.save(file)
    return reference, limits_for(reference)


def _pipeline(case: Case, tokenizers: Mapping[str, CLIPTokenizer]) -> dict[str, Any]:
    tables = {steps: (case.scheduler, table, case.eta or 0.0) for steps, table in case.tables.items()}
    image = {} if case.image is None else {"image_to_image": case.image.key(3, 2 * SIDE, tables)}
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
        **image,
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out
    for name, case in (CASES | IMAGE_CASES).items():
        write_case(case, out / name)
