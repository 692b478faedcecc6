"""One part of a pipeline in integers: its function, its weights and what its activations reach.

Weights of convolutions, Linear layers and token embeddings are int8 per output channel (per token of an embedding), rounded to
nearest; everything else stays float32. What a target computes in is the target's affair: integers are shared by all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from dq_toolchain.toolchain.disk.files import read_tensors, write_tensors
from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.formats.artifact import LayerWeights
from dq_toolchain.toolchain.formats.bundle import Port
from dq_toolchain.toolchain.models.loading import REFUSALS
from dq_toolchain.toolchain.parts.clip import ClipText
from dq_toolchain.toolchain.parts.image_to_image import VAE_ENCODER
from dq_toolchain.toolchain.parts.picture import PictureDecoder, PictureEncoder
from dq_toolchain.toolchain.parts.t5 import T5Text
from dq_toolchain.toolchain.quant.qparams import SMALLEST_WEIGHT_SCALE, fp16_exact, quantize, weight_type
from dq_toolchain.toolchain.quant.sites import weighted_layers

REMEDY = "run `dq-toolchain calibrate` again"
BITS = 8
KINDS: Mapping[str, type[nn.Module]] = {
    "clip": ClipText,
    "t5": T5Text,
    "decoder": PictureDecoder,
    VAE_ENCODER: PictureEncoder,
}
DECODER = "decoder"
TABLES = ("token_embedding", "shared")
"""Names of embeddings whose rows become integers."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Attributes:
    name: "text_encoder", "text_encoder_2", ..., "vae_encoder" or "decoder".
    kind: of KINDS. config: of transformers or diffusers. options: further arguments of the kind's class.
    inputs, outputs: of one call, batch 1.
    layers: integer weights by module name, of embeddings too.
    float_parameters: the rest of the state dict.
    ranges: by layer (4,) float32: smallest and largest input, smallest and largest result, over calls that are not the
        reference's; the inputs of a table are tokens, and 0 here.
    """

    name: str
    kind: str
    config: Mapping[str, Any]
    options: Mapping[str, Any]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    layers: Mapping[str, LayerWeights]
    float_parameters: Mapping[str, Tensor]
    ranges: Mapping[str, Tensor]

    def architecture(self) -> nn.Module:
        """The module without weights: its parameters are on torch's meta device. Raises ArtifactError."""
        return architecture(self.kind, self.config, self.options)

    def build(self) -> nn.Module:
        """The module with dequantized weights: float32, eval, gradients off."""
        state = dict(self.float_parameters)
        state |= {f"{name}.weight": layer.dequantized() for name, layer in self.layers.items()}
        return filled(self.architecture(), state)

    @property
    def tables(self) -> tuple[str, ...]:
        """Layers whose rows are looked up; the others are products."""
        return tuple(name for name in self.layers if name.endswith(TABLES))

    @property
    def integers(self) -> int:
        return sum(layer.weight_q.numel() for layer in self.layers.values())

    def header(self) -> dict[str, Any]:
        """What pipeline.json says of it."""
        ports = {"inputs": [asdict(port) for port in self.inputs], "outputs": [asdict(port) for port in self.outputs]}
        return {
            "name": self.name,
            "kind": self.kind,
            "config": dict(self.config),
            "options": dict(self.options),
            **ports,
        }

    def save(self, folder: Path) -> None:
        """Write NAME.safetensors into the folder. Raises ToolchainError."""
        tensors = {f"weight_q/{name}": layer.weight_q for name, layer in self.layers.items()}
        tensors |= {f"weight_scale/{name}": layer.weight_scale for name, layer in self.layers.items()}
        tensors |= {f"float/{name}": value for name, value in self.float_parameters.items()}
        tensors |= {f"range/{name}": value for name, value in self.ranges.items()}
        write_tensors(folder / f"{self.name}.safetensors", tensors)

    @classmethod
    def load(cls, folder: Path, header: Mapping[str, Any]) -> Part:
        """Raises ArtifactError: the file is damaged, or does not hold what the part's module needs."""
        file = folder / f"{header['name']}.safetensors"
        groups: dict[str, dict[str, Tensor]] = {"weight_q": {}, "weight_scale": {}, "float": {}, "range": {}}
        for key, value in read_tensors(file, REMEDY).items():
            group, _, name = key.partition("/")
            if group not in groups:
                raise ArtifactError(f"{file} holds {key!r}, which no part has; {REMEDY}")
            groups[group][name] = value
        if groups["weight_q"].keys() != groups["weight_scale"].keys():
            raise ArtifactError(f"{file}: integers and scales are of other layers; {REMEDY}")
        part = cls(
            name=header["name"],
            kind=header["kind"],
            config=header["config"],
            options=header["options"],
            inputs=_ports(header["inputs"]),
            outputs=_ports(header["outputs"]),
            layers={n: LayerWeights(q, groups["weight_scale"][n]) for n, q in groups["weight_q"].items()},
            float_parameters=groups["float"],
            ranges=groups["range"],
        )
        part._check(file)
        return part

    def _check(self, file: Path) -> None:
        want = {name: value.shape for name, value in self.architecture().state_dict().items()}
        have = {f"{n}.weight": layer.weight_q.shape for n, layer in self.layers.items()}
        have |= {name: value.shape for name, value in self.float_parameters.items()}
        wrong = next((name for name in sorted({*want, *have}) if want.get(name) != have.get(name)), None)
        if wrong is not None:
            raise ArtifactError(
                f"{file}: {wrong!r} has shape {have.get(wrong)}, the part needs {want.get(wrong)}; {REMEDY}"
            )
        for name, layer in self.layers.items():
            q, scale = layer.weight_q, layer.weight_scale
            if q.dtype != torch.int8 or scale.dtype != torch.float32 or tuple(scale.shape) != (len(q),):
                raise ArtifactError(f"{file}: {name} holds no int8 weights with a float32 scale per channel; {REMEDY}")
            if not bool((scale.isfinite() & (scale > 0)).all()):
                raise ArtifactError(f"{file}: a scale of {name} is not positive; {REMEDY}")


def architecture(kind: str, config: Mapping[str, Any], options: Mapping[str, Any]) -> nn.Module:
    """A part's module without weights. Raises ArtifactError: no such kind, or the config makes no sense."""
    if kind not in KINDS:
        raise ArtifactError(f"no part is of kind {kind!r}, allowed are {', '.join(KINDS)}; {REMEDY}")
    try:
        with init_empty_weights(include_buffers=False):
            return KINDS[kind](config, **options)
    except REFUSALS as error:
        raise ArtifactError(
            f"a {kind} cannot be made of its config: {' '.join(str(error).split())[:300]}; {REMEDY}"
        ) from error


def filled(module: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """The module with these weights, eval, gradients off."""
    module.load_state_dict(dict(state), assign=True)
    return module.eval().requires_grad_(False)


def integer_layers(module: nn.Module) -> tuple[str, ...]:
    """Names of what gets integer weights: convolutions, Linear layers, and the token embedding, whose rows are looked up.

    Position embeddings are added whole, are small, and stay float."""
    tables = tuple(
        name for name, each in module.named_modules() if isinstance(each, nn.Embedding) and name.endswith(TABLES)
    )
    return (*tables, *(name for name, _ in weighted_layers(module)))


def to_integers(weight: Tensor) -> LayerWeights:
    """int8 per output channel, symmetric, nearest; the scale holds the channel's largest weight."""
    rows = weight.detach().to(torch.float32).flatten(1)
    scale = fp16_exact(rows.abs().amax(1) / weight_type(BITS).qmax, SMALLEST_WEIGHT_SCALE)
    shape = (-1, *[1] * (weight.dim() - 1))
    return LayerWeights(quantize(weight.detach(), scale.view(shape), 0, weight_type(BITS)).to(torch.int8), scale)


def example(port: Port) -> Tensor:
    """An input of the right shape and dtype: zeros."""
    return torch.zeros(port.shape, dtype=torch.int64 if port.dtype == "int64" else torch.float32)


def _ports(rows: Any) -> tuple[Port, ...]:
    return tuple(Port(str(row["name"]), str(row["dtype"]), tuple(map(int, row["shape"]))) for row in rows)
