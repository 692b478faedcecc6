"""Loads an FP32 network with its scheduler, and rebuilds a network from its config."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
from accelerate import init_empty_weights
from torch import nn

from dq_toolchain.toolchain.disk.files import sha256
from dq_toolchain.toolchain.disk.spill import Spill
from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.models.architectures import ARCHITECTURES, without_idle
from dq_toolchain.toolchain.models.lora import Lora, fuse_into_network
from dq_toolchain.toolchain.models.network_config import check_bounds, defaults
from dq_toolchain.toolchain.models.source import Source, find_model, with_weights
from dq_toolchain.toolchain.models.weight_files import read_state

REFUSALS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What diffusers and torch raise on building or calling a network whose config or input does not make sense."""


@dataclass(frozen=True)
class Model:
    """An FP32 network in eval mode with everything needed to name it again.

    Attributes:
        folder: that it came from; of a model in memory one that is not there.
        pipeline: the diffusers pipeline object that it came from, which then encodes prompts.
        module: of a network that no config describes, the module that the caller gave.
        in_pages: of each parameter that was read from a file, whether it lies in pages of one, which the system can drop; empty
            of a model in memory.
    """

    id: str
    weight_hash: str
    config: dict[str, Any]
    scheduler_config: dict[str, Any]
    network: nn.Module
    folder: Path
    lora: Lora | None = None
    pipeline: Any = None
    module: nn.Module | None = None
    in_pages: Mapping[str, bool] = field(default_factory=dict)

    @property
    def config_file(self) -> Path:
        """Where the network's config came from."""
        architecture = ARCHITECTURES.get(self.config["_class_name"])
        inside = self.folder / ("" if architecture is None else architecture.part) / "config.json"
        return inside if inside.is_file() else self.folder / "config.json"

    @property
    def place_of_size(self) -> str:
        """Where the size of a sample is set, for texts of errors."""
        return "sample_shape" if self.module is not None else f"sample_size in {self.config_file}"


def build_network(config: Mapping[str, Any], where: str = "unet/config.json") -> nn.Module:
    """A network from a diffusers config, eval mode, gradients off, its parameters on torch's meta device: shapes, no memory.

    Args:
        where: file that the config came from, for the error.

    Raises:
        ModelError: ``_class_name`` is not one of ARCHITECTURES, or diffusers rejects the config.
    """
    name = config.get("_class_name")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise ModelError(
            f"{where}: _class_name is {str(name)[:60]!r}, allowed are {', '.join(ARCHITECTURES)}; other networks are not supported"
        )
    check_bounds(config, where)
    try:
        with init_empty_weights(include_buffers=False):
            network: nn.Module = getattr(diffusers, name).from_config(_known(config))
    except REFUSALS as error:
        raise ModelError(
            f"{where} is not a valid {name} config: {' '.join(str(error).split())[:300]}; correct it"
        ) from error
    packed = ARCHITECTURES[name].packed
    if packed is not None:
        packed.ready(network)
    return network.eval().requires_grad_(False)


def _known(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without ``sample_size`` where the class has none: there it is ours to say, as the pipeline's call does."""
    return {
        key: value for key, value in config.items() if key != "sample_size" or key in defaults(config["_class_name"])
    }


def load_model(
    name: str | Path | None = None, variant: str | None = None, scheduler: Path | None = None, lora: Lora | None = None
) -> Model:
    """Find an FP32 model and load it; None is the embedded digits model. Arguments as ``find_model``'s and ``load``'s.

    Raises:
        ModelError: something is missing, damaged, or of an unsupported kind; the text names the file.
    """
    return load(find_model(name, variant, scheduler), lora)


def load(source: Source, lora: Lora | None = None, spill: Spill | None = None) -> Model:
    """The model that a source describes, with the adapters of ``lora`` added. Weights are read and hashed here, not before.

    Weights in bf16 or fp16 are widened to float32, in memory or in the spill's files; those in float32 stay in the file's pages.

    Raises:
        ModelError: weights are missing, damaged or do not fit the config; the text names the file.
        ToolchainError: the disk has no room for the spill.
    """
    model = _load_weights(source, spill)
    if lora is None:
        return model
    places = {name: parameter.data_ptr() for name, parameter in model.network.named_parameters()}
    lora = fuse_into_network(model.network, lora, spill)
    changed = {name for name, parameter in model.network.named_parameters() if parameter.data_ptr() != places[name]}
    weight_hash = hashlib.sha256(f"{model.weight_hash} {lora.digest}".encode()).hexdigest()
    in_pages = {name: is_in and (spill is not None or name not in changed) for name, is_in in model.in_pages.items()}
    return replace(model, id=f"{model.id} + {lora.file.stem}", weight_hash=weight_hash, lora=lora, in_pages=in_pages)


def _load_weights(source: Source, spill: Spill | None) -> Model:
    source = with_weights(source)
    network = build_network(source.config, str(source.network / "config.json"))
    state = read_state(source.weights, network, partial(without_idle, source.config), spill)
    network.load_state_dict(state.tensors, assign=True)
    return Model(
        source.id,
        _weight_hash(source.weights),
        source.config,
        source.scheduler_config,
        network.requires_grad_(False),
        source.folder,
        in_pages=state.in_pages,
    )


def _weight_hash(files: tuple[Path, ...]) -> str:
    """sha256 of the file, or of the digests of several."""
    digests = [sha256(file) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
