"""What a CLIP model sees in the pictures of a chain: how near each is to its prompt, and the device's to FP32's. It judges nothing.

The model is the user's, from a folder as transformers saves it; nothing is downloaded. CLIPScore (Hessel et al., EMNLP 2021,
arXiv 2104.08718) is 100 times the larger of 0 and the first of these cosines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.parts.chain import FP32

if TYPE_CHECKING:
    from dq_toolchain.toolchain.parts.chain import Chain

STEM = "model"
REMEDY = (
    "give the folder of a CLIP model as transformers saves it: config.json, model.safetensors, tokenizer.json, "
    "preprocessor_config.json"
)
TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
"""Files of which one set must be there: without them the library makes a tokenizer that knows no word."""
Warn = Callable[[str], None]


@dataclass(frozen=True)
class ClipScores:
    """Cosines in [-1, 1], one per picture.

    Attributes:
        model: the folder's name.
        prompt: of the prompt and the picture, by stage, with ``FP32`` for FP32's own; empty where there are no prompts.
        picture: of FP32's and the device's picture, by stage.
    """

    model: str
    prompt: Mapping[str, tuple[float, ...]]
    picture: Mapping[str, tuple[float, ...]]

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "prompt": {name: list(values) for name, values in self.prompt.items()},
            "picture": {name: list(values) for name, values in self.picture.items()},
        }


class ClipModel:
    """A CLIP model of transformers in float32.

    Args:
        warn: is told of weights that the model does not use.
    Raises:
        ModelError: the folder holds none, or it cannot be read.
    """

    def __init__(self, folder: Path, warn: Warn = lambda _line: None) -> None:
        import transformers  # takes seconds

        from dq_toolchain.toolchain.models.parts import load_part
        from dq_toolchain.toolchain.models.source import read_config

        if not (folder / "config.json").is_file():
            raise ModelError(f"--clip: {folder} has no config.json; {REMEDY}")
        kind = read_config(folder / "config.json").get("model_type")
        if kind != "clip":
            raise ModelError(f"--clip: model_type of {folder / 'config.json'} is {kind!r}, allowed is 'clip'; {REMEDY}")
        self.name = folder.resolve().name
        if not any(all((folder / name).is_file() for name in names) for names in TOKENIZERS):
            raise ModelError(f"--clip: {folder} has no tokenizer.json; {REMEDY}")
        self._tokenizer = _beside(transformers.CLIPTokenizer, folder)
        self._processor = _beside(transformers.CLIPImageProcessorPil, folder)
        self._model = load_part(transformers.CLIPModel, folder, STEM, warn)
        self._length = int(self._model.config.text_config.max_position_embeddings)
        words, size = len(self._tokenizer), int(self._model.config.text_config.vocab_size)
        if words > size:
            raise ModelError(
                f"--clip: the tokenizer in {folder} has {words} tokens, the model {size}; take both of one model"
            )

    def notes_on(self, prompts: tuple[str, ...]) -> tuple[str, ...]:
        """A line for each prompt that is too long for the model."""
        return tuple(
            f"{prompt!r} is longer than the {self._length} tokens of {self.name}, which scored its beginning"
            for prompt in prompts
            if len(self._tokenizer(prompt)["input_ids"]) > self._length
        )

    @torch.no_grad()
    def texts(self, prompts: tuple[str, ...]) -> Tensor:
        """(S, D), of length 1 each; of a prompt that is too long its beginning."""
        rows = []
        for prompt in prompts:
            ids = self._tokenizer(prompt)["input_ids"]
            if len(ids) > self._length:
                ids = [*ids[: self._length - 1], ids[-1]]
            hidden = self._model.text_model(input_ids=torch.tensor([ids])).pooler_output
            rows.append(self._model.text_projection(hidden)[0])
        return _of_length_1(rows)

    @torch.no_grad()
    def pictures(self, pictures: Tensor) -> Tensor:
        """(S, D), of length 1 each; ``pictures`` (S, 3, H, W) uint8."""
        rows = []
        for picture in pictures:
            pixels = self._processor(picture.permute(1, 2, 0).numpy(), return_tensors="pt")["pixel_values"]
            rows.append(self._model.visual_projection(self._model.vision_model(pixels).pooler_output)[0])
        return _of_length_1(rows)


def scored(chain: Chain, model: ClipModel) -> Chain:
    """The chain with what the model sees in its pictures.

    Raises:
        ModelError: it sees nothing but NaN, or its config does not take the pictures.
    """
    from dq_toolchain.toolchain.models.parts import FAULTS

    try:
        wanted = model.pictures(chain.fp32)
        seen = {stage.name: model.pictures(stage.pictures) for stage in chain.stages}
        texts = model.texts(chain.prompts) if chain.prompts else None
    except FAULTS as error:
        raise ModelError(f"--clip: {model.name} cannot see ({' '.join(str(error).split())[:200]}); {REMEDY}") from error
    prompt = {} if texts is None else {name: _cosines(texts, rows) for name, rows in ({FP32: wanted} | seen).items()}
    return replace(
        chain, clip=ClipScores(model.name, prompt, {name: _cosines(wanted, rows) for name, rows in seen.items()})
    )


def _beside(kind: Any, folder: Path) -> Any:
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the tokenizers' library raises Exception itself
        text = " ".join(str(error).split())[:200]
        raise ModelError(f"--clip: {folder} cannot be read as {kind.__name__} ({text}); {REMEDY}") from error


def _of_length_1(rows: list[Tensor]) -> Tensor:
    found = torch.nn.functional.normalize(torch.stack(rows), dim=-1)
    if not torch.isfinite(found).all():
        raise ValueError("it gives NaN or infinity")
    return found


def _cosines(ours: Tensor, theirs: Tensor) -> tuple[float, ...]:
    return tuple((ours * theirs).sum(-1).tolist())
