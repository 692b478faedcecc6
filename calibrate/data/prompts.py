"""Text conditioning: prompts through the pipeline's own tokenizers and encoders, once; what they give is kept on disk.

The encoders are as large as the network that is quantized: they are loaded for this and freed before anything else is.
"""

from __future__ import annotations

import gc
import inspect
import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import tokenizers
import torch
import transformers
from diffusers.utils import is_bs4_available, is_ftfy_available
from torch import Tensor

from dq_toolchain.calibrate.data.encoders import TOKENIZERS, encoders_of, pipeline_class, text_pipeline
from dq_toolchain.calibrate.data.notes import Warn, read_literally
from dq_toolchain.calibrate.work.checkpoint import CheckpointFile, fingerprint
from dq_toolchain.toolchain.console.quiet import heard
from dq_toolchain.toolchain.disk.files import sha256
from dq_toolchain.toolchain.disk.reading import LARGEST, read_text
from dq_toolchain.toolchain.errors import ModelError, RecipeError
from dq_toolchain.toolchain.models.architectures import ARCHITECTURES
from dq_toolchain.toolchain.models.loading import REFUSALS, Model
from dq_toolchain.toolchain.models.lora import fuse_into_encoders
from dq_toolchain.toolchain.models.source import pipeline_index
from dq_toolchain.toolchain.sampler.conditioning import Conditioning

DEFAULT = Path(__file__).with_name("prompts.txt")
BATCH = 8
STATES, MASK = "encoder_hidden_states", "encoder_attention_mask"
INSTRUCTION = "complex_human_instruction"
"""Of SANA: what the language model reads in front of each prompt."""
OWN_WORDS = ("was truncated because", "Token indices sequence length")
"""What the libraries say and ``cut_short`` says better."""


MOST_PROMPTS, LONGEST_PROMPT = 10_000, 10_000
"""Each is encoded before anything else is done, and kept; encoders take 77 to 512 tokens."""
LINE = re.compile("[^\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")
"""What is not empty of ``str.splitlines``."""


def read_prompts(path: Path | None) -> list[str]:
    """One prompt per line; empty lines and those that begin with # are left out. None: the built-in list.

    Raises:
        RecipeError: not readable, nothing in it, or more than MOST_PROMPTS or a line longer than LONGEST_PROMPT.
    """
    remedy = "--prompts takes a text file with one prompt per line"
    text = read_text(DEFAULT if path is None else path, error=RecipeError, remedy=remedy)
    lines = (match[0].strip() for match in LINE.finditer(text))  # one by one: ten million lines take a gigabyte
    prompts = list(itertools.islice((line for line in lines if line and not line.startswith("#")), MOST_PROMPTS + 1))
    if not prompts:
        raise RecipeError(f"{path} holds no prompt; {remedy}")
    if len(prompts) > MOST_PROMPTS or len(longest := max(prompts, key=len)) > LONGEST_PROMPT:
        got = (
            f"more than {MOST_PROMPTS:,} prompts"
            if len(prompts) > MOST_PROMPTS
            else f"a prompt of {len(longest):,} characters"
        )
        raise RecipeError(
            f"{path} holds {got}, allowed are {MOST_PROMPTS:,} of {LONGEST_PROMPT:,} characters: calibration takes one per "
            "sample in turn; take a few hundred that are like those to be used"
        )
    return prompts


def encoded_prompts(
    model: Model, file: Path | None, negative: str, guided: bool, cache: Path, warn: Warn
) -> Conditioning:
    """One row per prompt, and one for the negative prompt if there is guidance; empty if the model comes without encoders.

    Args:
        warn: is told of what is left out of a prompt or read as plain text, and of what the libraries warn of; the same lines when
            the rows come from the cache.

    Raises:
        RecipeError: the prompts cannot be read, or there are prompts but no encoders.
        ModelError: the encoders cannot be loaded or called.
    """
    if model.pipeline is None and not encoders_of(model.folder):
        if file is not None:
            raise RecipeError(
                f"[conditioning] prompts: {model.folder} has no model_index.json with a text encoder to read them; give the whole "
                "pipeline's folder, or conditioning made elsewhere with --conditioning"
            )
        return Conditioning()
    prompts = read_prompts(file)
    if model.pipeline is not None:  # encoders in memory have no files that a cache could be named after
        return _sides(_encode(model, prompts, negative, guided, warn))
    lora = None if model.lora is None else model.lora.digest
    options = as_called(pipeline_class(model.folder, pipeline_index(model.folder)))
    identity = fingerprint(
        prompts, negative, guided, model.config["_class_name"], options, _files(model.folder), lora, _libraries()
    )
    saved = CheckpointFile(cache / f"{identity[:16]}.safetensors", identity)
    found = saved.load()
    if found is None:
        lines: list[str] = []
        tensors = _encode(model, prompts, negative, guided, lines.append)
        saved.save(tensors, {"notes": lines})
    else:
        tensors, lines = found[0], found[1]["notes"]
    for line in dict.fromkeys(lines):
        warn(line)
    return _sides(tensors)


def _sides(tensors: Mapping[str, Tensor]) -> Conditioning:
    """cond.NAME and uncond.NAME apart."""
    sides: dict[str, dict[str, Tensor]] = {"cond": {}, "uncond": {}}
    for name, tensor in tensors.items():
        side, _, keyword = name.partition(".")
        sides[side][keyword] = tensor
    return Conditioning(sides["cond"], sides["uncond"])


def _libraries() -> tuple[object, ...]:
    """What tokenizes and encodes, beside the files; the last two decide how a pipeline cleans a prompt."""
    versions = (diffusers.__version__, transformers.__version__, tokenizers.__version__, torch.__version__)
    return (*versions, is_bs4_available(), is_ftfy_available())


def _files(folder: Path) -> list[tuple[object, ...]]:
    """What stands for the encoders' content: of weights size and times, since reading gigabytes takes longer than encoding."""
    files = sorted(
        path
        for part in folder.iterdir()
        if part.name.startswith(("token", "text_enc", "model_index.json"))
        for path in (part, *part.rglob("*"))
        if path.is_file()
    )
    found: list[tuple[object, ...]] = []
    for path in files:
        status, name = path.stat(), str(path.relative_to(folder))
        is_large = path.suffix == ".safetensors" or status.st_size > LARGEST
        times = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, path.resolve().name)
        found.append((name, *times) if is_large else (name, sha256(path)))
    return found


@torch.no_grad()
def _encode(model: Model, prompts: Sequence[str], negative: str, guided: bool, warn: Warn) -> dict[str, Tensor]:
    pipeline = text_pipeline(model.folder, warn) if model.pipeline is None else model.pipeline
    tokenizers_there = [each for name in TOKENIZERS if (each := getattr(pipeline, name, None)) is not None]
    for line in (*read_literally([*prompts, negative], tokenizers_there), *cut_short(pipeline, [*prompts, negative])):
        warn(line)
    if model.lora is not None:
        fuse_into_encoders(pipeline, model.network, model.lora)
    try:
        with heard(lambda line: None if any(words in line for words in OWN_WORDS) else warn(line)):
            batches = [
                encode(pipeline, model.config, prompts[i : i + BATCH], None)[0] for i in range(0, len(prompts), BATCH)
            ]
            uncond = encode(pipeline, model.config, prompts[:1], negative)[1] if guided else {}
            *batches, uncond = of_one_length([*batches, uncond])
            found = {f"cond.{name}": torch.cat([batch[name] for batch in batches]) for name in batches[0]}
            found |= {f"uncond.{name}": value for name, value in uncond.items()}
    except REFUSALS as error:
        raise ModelError(
            f"{type(pipeline).__name__} cannot encode prompts: {' '.join(str(error).split())}; check {model.folder}"
        ) from error
    wrong = next((name for name, value in found.items() if not torch.isfinite(value).all()), None)
    if wrong is not None:
        raise ModelError(
            f"the text encoders of {model.folder} give NaN or infinity for {wrong}; take another checkpoint of them, or "
            "conditioning made elsewhere with --conditioning"
        )
    del pipeline
    gc.collect()
    return found


def as_called(kind: Any) -> dict[str, Any]:
    """What a call of a pipeline's class hands to ``encode_prompt`` by itself, such as the instruction in front of SANA's prompts.

    The function's own defaults are other ones in places, so a prompt would be encoded as no picture of diffusers has it.
    """
    accepted = inspect.signature(kind.encode_prompt).parameters
    called = inspect.signature(kind.__call__).parameters
    none = (None, inspect.Parameter.empty)
    return {name: called[name].default for name in accepted if name in called and called[name].default not in none}


NAMED = 3
"""Prompts that are named where many are too long."""


def cut_short(pipeline: Any, prompts: Sequence[str]) -> Iterator[str]:
    """A line for each prompt of which a tokenizer would leave a part out; of many the first are named and the others counted."""
    options = as_called(type(pipeline))
    limit = options.get("max_sequence_length")
    for name in TOKENIZERS:
        tokenizer = getattr(pipeline, name, None)
        if tokenizer is None:
            continue
        most = int(tokenizer.model_max_length)
        if limit is not None and INSTRUCTION in options:
            most = min(most, int(limit) - 1)  # one of them is the token that stands in front of the instruction
        elif limit is not None and "T5" in type(tokenizer).__name__:  # the pipeline's own limit is not for CLIP
            most = min(most, int(limit))
        elif limit is not None and tokenizer.chat_template is not None:
            most = min(most, int(limit)) - _around(tokenizer)
        counts = {prompt: len(tokenizer(prompt, truncation=False, verbose=False).input_ids) for prompt in prompts}
        cut = {prompt: count for prompt, count in counts.items() if count > most}
        for prompt, count in list(cut.items())[:NAMED]:
            yield f"prompt {prompt[:40]!r} has {count} tokens, {name} takes {most}: the rest is left out"
        if len(cut) > NAMED:
            yield f"{len(cut) - NAMED} more of {len(counts)} prompts have more tokens than the {most} that {name} takes"


def _around(tokenizer: Any) -> int:
    """Tokens that a chat template puts around a prompt."""
    return len(tokenizer.apply_chat_template([{"role": "user", "content": ""}], add_generation_prompt=True).input_ids)


def encode(
    pipeline: Any, config: Mapping[str, Any], prompts: Sequence[str], negative: str | None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Rows of the prompts, and of the negative prompt where there is one, by the pipeline's own ``encode_prompt``: float32.

    Args:
        config: of the network. negative: None without guidance.
    """
    accepted = inspect.signature(pipeline.encode_prompt).parameters
    given: dict[str, Any] = {
        "prompt": list(prompts), "prompt_2": None, "prompt_3": None, "device": pipeline.device, "num_images_per_prompt": 1,
        "do_classifier_free_guidance": negative is not None, "negative_prompt": None,
    }  # fmt: skip
    given = as_called(type(pipeline)) | given
    if "negative_prompt" not in accepted:
        return _apart(pipeline, config, given, accepted, negative)
    if negative or accepted["negative_prompt"].default == "":  # what an empty one becomes is the pipeline's affair
        given["negative_prompt"] = [negative or ""] * len(prompts)
    out = pipeline.encode_prompt(**{name: value for name, value in given.items() if name in accepted})
    if len(out) == 2:
        sides = [_rows(states) for states in out]
    elif pooled := ARCHITECTURES[config["_class_name"]].pooled:
        sides = [{"encoder_hidden_states": out[i], pooled: out[i + 2]} for i in (0, 1)]
    else:
        sides = [{"encoder_hidden_states": out[i], MASK: out[i + 1]} for i in (0, 2)]
    return _kept(sides[0]), _kept(sides[1])


def _rows(states: Tensor | Sequence[Tensor]) -> dict[str, Tensor | None]:
    """Of a list of embeddings, each as long as its prompt (Z-Image), rows of one length and their mask."""
    if isinstance(states, Tensor):
        return {STATES: states}
    if not states:
        return {}
    lengths = torch.tensor([len(each) for each in states])
    rows = torch.nn.utils.rnn.pad_sequence(list(states), batch_first=True)
    return {STATES: rows, MASK: torch.arange(rows.shape[1]) < lengths[:, None]}


def of_one_length(sides: Sequence[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Masked embeddings of several batches, all padded to the longest; others are of one length already."""
    longest = max(side[MASK].shape[1] if MASK in side else 0 for side in sides)

    def padded(name: str, value: Tensor) -> Tensor:
        more = longest - value.shape[1] if name in (STATES, MASK) else 0
        return torch.nn.functional.pad(value, (0, 0) * (value.dim() - 2) + (0, more)) if more > 0 else value

    return [
        {name: padded(name, value) for name, value in side.items()} if MASK in side else dict(side) for side in sides
    ]


def _apart(
    pipeline: Any, config: Mapping[str, Any], given: dict[str, Any], accepted: Collection[str], negative: str | None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Of pipelines that encode a negative prompt as any other (FLUX), which return states, what is pooled of them, and positions
    that the network's call makes itself."""
    pooled = ARCHITECTURES[config["_class_name"]].pooled

    def side(prompts: Sequence[str]) -> dict[str, Tensor]:
        asked = {**given, "prompt": list(prompts)}
        out = pipeline.encode_prompt(**{name: value for name, value in asked.items() if name in accepted})
        return _kept({"encoder_hidden_states": out[0]} | ({pooled: out[1]} if pooled else {}))

    count = len(given["prompt"])
    return side(given["prompt"]), {} if negative is None else side([negative] * count)


def _kept(side: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    return {name: value.float().cpu() for name, value in side.items() if value is not None}
