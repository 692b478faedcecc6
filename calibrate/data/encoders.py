"""A pipeline with its tokenizers and text encoders only: no class but diffusers' and transformers', no code out of the folder."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import transformers

from dq_toolchain.calibrate.data.notes import Warn
from dq_toolchain.toolchain.console.quiet import unheard
from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.models.parts import FAULTS, load_part
from dq_toolchain.toolchain.models.source import pipeline_index

ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")
STEM = "model"
"""Of the weight files of everything that transformers saves."""
OWN_CODE = "code out of a model's folder is never run; give conditioning made elsewhere with --conditioning"


def encoders_of(folder: Path) -> tuple[str, ...]:
    """Names of the text encoders that a pipeline comes with, none for a bare network. Raises ModelError."""
    if not (folder / "model_index.json").is_file():
        return ()
    index = pipeline_index(folder)
    return tuple(name for name in ENCODERS if _is_there(index.get(name)))


def text_pipeline(folder: Path, warn: Warn = lambda _line: None) -> Any:
    """The pipeline of a folder, of its own class, with everything else left out.

    Args:
        warn: is told of weights that are not used.
    Raises:
        ModelError: the class is not diffusers' own, or a part is missing, damaged or not whole.
    """
    index = pipeline_index(folder)
    kind = pipeline_class(folder, index)
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    parts = {
        name: _part(folder, name, index[name], warn) for name in (*TOKENIZERS, *ENCODERS) if _is_there(index.get(name))
    }
    mute = next(
        (name for name in ENCODERS if name in parts and name.replace("text_encoder", "tokenizer") not in parts), None
    )
    if mute is not None:
        raise ModelError(
            f"{folder / 'model_index.json'}: {mute} comes without its {mute.replace('text_encoder', 'tokenizer')}; download "
            "the whole pipeline, or give conditioning made elsewhere with --conditioning"
        )
    accepted = [name for name in inspect.signature(kind.__init__).parameters if name != "self"]
    strange = next((name for name in parts if name not in accepted), None)
    if strange is not None:
        raise ModelError(
            f"{folder / 'model_index.json'}: {kind.__name__} takes no {strange}; restore the file that diffusers saved"
        )
    options = {name: value for name, value in index.items() if name in accepted and not isinstance(value, list | dict)}
    if "requires_safety_checker" in accepted:
        options["requires_safety_checker"] = False  # no picture is made with it
    try:
        with unheard():  # of what is left out on purpose
            return kind(**(dict.fromkeys(accepted) | _defaults(kind) | options | parts))
    except FAULTS as error:
        raise ModelError(
            f"{kind.__name__} cannot be made of the text encoders in {folder}: {' '.join(str(error).split())[:300]}; give "
            "conditioning made elsewhere with --conditioning"
        ) from error


def pipeline_class(folder: Path, index: Mapping[str, Any]) -> Any:
    """diffusers' class that the index names. Raises ModelError: there is none, or it encodes no prompts."""
    named = index.get("_class_name")
    name = named[-1] if isinstance(named, list) else str(named).removeprefix("Flax")
    kind = None if isinstance(named, list) else getattr(diffusers, name, None)
    if not (inspect.isclass(kind) and issubclass(kind, diffusers.DiffusionPipeline)):
        raise ModelError(
            f"{folder / 'model_index.json'}: {name!r} is no pipeline of diffusers {diffusers.__version__}; {OWN_CODE}"
        )
    if not hasattr(kind, "encode_prompt"):
        raise ModelError(
            f"{folder / 'model_index.json'}: {name} does not encode prompts apart from sampling; give conditioning made elsewhere "
            "with --conditioning"
        )
    return kind


def _is_there(entry: object) -> bool:
    return entry not in (None, [None, None])


def _defaults(kind: Any) -> dict[str, Any]:
    found = inspect.signature(kind.__init__).parameters.items()
    return {name: each.default for name, each in found if each.default is not inspect.Parameter.empty}


def _part(folder: Path, name: str, entry: Sequence[str], warn: Warn) -> Any:
    library, class_name = entry
    kind = getattr(transformers, class_name, None) if library == "transformers" else None
    allowed = transformers.PreTrainedTokenizerBase if name in TOKENIZERS else transformers.PreTrainedModel
    if not (inspect.isclass(kind) and issubclass(kind, allowed)):
        raise ModelError(
            f"{folder / 'model_index.json'}: {name} is {class_name!r} of {library!r}, allowed are classes of transformers "
            f"{transformers.__version__}; {OWN_CODE}"
        )
    if not (folder / name).is_dir():
        raise ModelError(f"{folder / name} is missing, which model_index.json lists; download the whole pipeline")
    if name in ENCODERS:
        return load_part(kind, folder / name, STEM, warn)
    loader: Any = kind
    try:
        with unheard():
            return loader.from_pretrained(folder / name, local_files_only=True)
    except FAULTS as error:
        raise ModelError(
            f"{folder / name} cannot be read as {class_name}: {' '.join(str(error).split())[:300]}; download it again"
        ) from error
