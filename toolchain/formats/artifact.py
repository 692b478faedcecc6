"""The calibration artifact: the one thing that calibrate writes and every backend reads (docs/FORMATS.md).

Self-contained: architecture, sampler, integers and float leftovers; neither the FP32 model nor a hub is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dq_toolchain.toolchain.disk.files import (
    read_tensors,
    seal,
    sha256,
    write_json,
    write_tensors,
)
from dq_toolchain.toolchain.disk.staging import staged
from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.formats.artifact_checks import check_artifact
from dq_toolchain.toolchain.formats.bundle_checks import STEP_VECTORS
from dq_toolchain.toolchain.formats.listing import (
    DAMAGED,
    JSON,
    REMEDY,
    SCHEMA,
    TENSOR_FILES,
    VERSION,
    damaged,
    read_calibration,
)
from dq_toolchain.toolchain.formats.output_ranges import HIGH, LOW, OutputRanges
from dq_toolchain.toolchain.formats.reference import FILE as REFERENCE
from dq_toolchain.toolchain.formats.reference import Reference, references_in
from dq_toolchain.toolchain.models.loading import build_network
from dq_toolchain.toolchain.models.own import OWN, skeleton_of
from dq_toolchain.toolchain.quant.layers import output_first
from dq_toolchain.toolchain.quant.site import KEPT, FloatOp, Site
from dq_toolchain.toolchain.quant.smoothing import smooth_by_one
from dq_toolchain.toolchain.quant.split import split_concat_inputs
from dq_toolchain.toolchain.quant.step_vectors import StepVectors, use_step_vectors
from dq_toolchain.toolchain.sampler.samplings import Sampling, chosen, to_json
from dq_toolchain.toolchain.sampler.table import SamplerTable


@dataclass(frozen=True)
class LayerWeights:
    """``weight_q``: int8, shape of the float weight, output channel first, also of a transposed convolution (out, in / groups,
    *kernel); ``weight_scale``: float32 (out,), fp16-exact."""

    weight_q: Tensor
    weight_scale: Tensor

    def dequantized(self) -> Tensor:
        """Float32 weight, shape of ``weight_q``."""
        scale = self.weight_scale.view(-1, *[1] * (self.weight_q.dim() - 1))
        return self.weight_q.to(torch.float32).mul_(scale)  # no second float copy of a large layer


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """Everything a backend needs. G step groups, L sites (columns of ``scale`` and ``zero_point``).

    Attributes:
        model_id, weight_hash: name and sha256 of the FP32 weights this came from.
        config, scheduler_config: diffusers configs.
        table: the sampler. guidance: w of classifier-free guidance, 1 = none.
        step_groups: contiguous steps, the noisiest first.
        splits: convolutions cut at a concatenation, with channel sizes (applied by ``build_float_unet``).
        layers: integer weights by module name. float_parameters: the rest of the state dict.
        scale: (G, L) float32, fp16-exact; zero_point: (G, L) int32.
        smoothed: convolutions whose input channels are multiplied by a ``factor`` among the float parameters.
        record: method, hyper-parameters, seeds, versions, losses (plain JSON values).
        module: of a network that no config describes, the module that gives its architecture; never written to a file.
        step_vectors: what the network takes in the place of the timestep; the float parameters then hold also those that made the
            rows. None: the timestep.
        output_ranges: smallest and largest results of all products; None unless the recipe asked for them.
        samplings: other step counts and guidance scales that have held-out rollouts too; then ``steps`` is what the scheduler
            was asked for at the calibrated one.
    """

    model_id: str
    weight_hash: str
    config: Mapping[str, Any]
    scheduler_config: Mapping[str, Any]
    table: SamplerTable
    guidance: float
    step_groups: tuple[tuple[int, ...], ...]
    splits: Mapping[str, tuple[int, ...]]
    sites: tuple[Site, ...]
    float_operations: tuple[FloatOp, ...]
    layers: Mapping[str, LayerWeights]
    scale: Tensor
    zero_point: Tensor
    float_parameters: Mapping[str, Tensor]
    record: Mapping[str, Any]
    smoothed: tuple[str, ...] = ()
    module: nn.Module | None = None
    step_vectors: StepVectors | None = None
    output_ranges: OutputRanges | None = None
    steps: int | None = None
    samplings: tuple[Sampling, ...] = ()

    def site_index(self, layer: str, operand: str = "input") -> int:
        """Column of a site. Raises KeyError."""
        for index, site in enumerate(self.sites):
            if site.layer == layer and site.operand == operand:
                return index
        raise KeyError(f"{layer}:{operand}")

    @property
    def step_rows(self) -> Tensor | None:
        """What the network takes in the place of the timestep, a row per network call: (N, V) float32; None: the timestep."""
        return None if self.step_vectors is None else self.step_vectors.at(self.table.timesteps).rows

    @property
    def float_layers(self) -> tuple[str, ...]:
        """Layers that the recipe keeps in float; their weights are among the float parameters."""
        return tuple(op.layer for op in self.float_operations if op.reason == KEPT)

    @property
    def group_of_step(self) -> tuple[int, ...]:
        """step -> step group index."""
        return tuple(g for g, steps in enumerate(self.step_groups) for _ in steps)

    def at(self, sampling: Sampling) -> Artifact:
        """The same network sampled in another way."""
        vectors = None if self.step_vectors is None else self.step_vectors.at(sampling.table.timesteps)
        own = replace(self, table=sampling.table, guidance=sampling.guidance, step_groups=sampling.step_groups)
        return replace(own, step_vectors=vectors, steps=None, samplings=())

    def holding(self, steps: Sequence[int], guidance: Sequence[float]) -> Artifact:
        """The same with the samplings that a bundle is to hold. Raises SamplerError: it has no held-out rollouts of one."""
        own = self.table.calls if self.steps is None else self.steps
        found = chosen(self.samplings, own, self.guidance, steps, guidance)
        return replace(self, steps=own if found else None, samplings=found)

    def build_float_unet(self) -> nn.Module:
        """The network with dequantized weights, splits and step vectors applied: float32, eval, gradients off."""
        return self._with_step_vectors(self.build_with_timestep())

    def build_with_timestep(self) -> nn.Module:
        """``build_float_unet`` with the layers that compute step vectors from any timestep."""
        network = self.architecture()
        state = dict(self.float_parameters)
        state |= {f"{name}.weight": layer.dequantized() for name, layer in self.layers.items()}
        network.load_state_dict(state, assign=True)
        return network.eval().requires_grad_(False)

    def build_skeleton(self) -> nn.Module:
        """The network with its float parameters, for those who put integer layers in the place of the others.

        The weights of integer layers are on torch's meta device: they have shapes and take no memory.
        """
        network = self.architecture()
        network.load_state_dict(dict(self.float_parameters), strict=False, assign=True)
        return self._with_step_vectors(network.eval().requires_grad_(False))

    def _with_step_vectors(self, network: nn.Module) -> nn.Module:
        if self.step_vectors is not None:
            use_step_vectors(network, self.step_vectors)
        return network

    def require_module(self) -> None:
        """Raise ArtifactError if the network can only be built from a module, and none was given."""
        if self.config.get("_class_name") == OWN and self.module is None:
            raise ArtifactError(
                f"this artifact is of a module of your own ({self.config.get('class')}), whose architecture no file holds; give "
                "the module again, in Python: dq_toolchain.export(artifact, target, module=...)"
            )

    def architecture(self) -> nn.Module:
        self.require_module()
        network = build_network(self.config) if self.module is None else skeleton_of(self.module)
        split_concat_inputs(network, self.splits)
        smooth_by_one(network, self.smoothed)
        output_first(network, self.layers)
        return network

    def save(self, folder: Path, reference: Reference, more: Sequence[Reference] = ()) -> None:
        """Write the whole folder: made beside its place and moved there at the end, so that an older artifact stays whole
        until this one is, and nothing half old and half new ever loads.

        Args:
            more: the held-out rollouts of ``samplings``, in their order.
        Raises:
            ToolchainError: the folder cannot be written.
        """
        with staged(folder, JSON, (STEP_VECTORS, *references_in(folder))) as inside:
            self._write(inside, reference, more)

    def _write(self, folder: Path, reference: Reference, more: Sequence[Reference]) -> None:
        weights = {f"{n}.weight_q": layer.weight_q for n, layer in self.layers.items()}
        weights |= {f"{n}.weight_scale": layer.weight_scale for n, layer in self.layers.items()}
        write_tensors(folder / TENSOR_FILES[0], weights)
        outputs = self.output_ranges
        measured = {} if outputs is None else {LOW: outputs.low, HIGH: outputs.high}
        write_tensors(folder / TENSOR_FILES[1], {"scale": self.scale, "zero_point": self.zero_point, **measured})
        write_tensors(folder / TENSOR_FILES[2], self.float_parameters)
        extra: dict[str, Any] = {}
        if self.step_vectors is not None:
            write_tensors(folder / STEP_VECTORS, self.step_vectors.tensors)
            extra["step_vectors"] = self.step_vectors.to_json()
        names = (
            *TENSOR_FILES,
            REFERENCE,
            *((STEP_VECTORS,) if extra else ()),
            *(sampling.file for sampling in self.samplings),
        )
        reference.save(folder / REFERENCE)
        for sampling, rollouts in zip(self.samplings, more, strict=True):
            rollouts.save(folder / sampling.file)
        write_json(
            folder / JSON,
            seal(
                {
                    "schema": SCHEMA,
                    "schema_version": VERSION,
                    "model_id": self.model_id,
                    "weight_hash": self.weight_hash,
                    "config": dict(self.config),
                    "scheduler_config": dict(self.scheduler_config),
                    "table": self.table.to_json(),
                    "guidance": self.guidance,
                    "step_groups": [list(steps) for steps in self.step_groups],
                    "splits": {name: list(channels) for name, channels in self.splits.items()},
                    "smoothed": list(self.smoothed),
                    "sites": [site.to_json() for site in self.sites],
                    **({} if outputs is None else {"outputs": list(outputs.names)}),
                    "float_operations": [[op.layer, op.kind, op.reason] for op in self.float_operations],
                    "record": dict(self.record),
                    **extra,
                    **to_json(self.steps, self.samplings),
                    "files": {name: sha256(folder / name) for name in names},
                }
            ),
        )

    @classmethod
    def load(cls, folder: Path, module: nn.Module | None = None) -> Artifact:
        """Read an artifact and check hashes, shapes and integer ranges.

        Args:
            module: of a network that no config describes, the module that it was calibrated from; only its architecture is
                taken. Without it such an artifact can be looked at, and not be built.
        Raises:
            ArtifactError: missing, damaged, edited or of another schema version; the text names the file.
        """
        data = read_calibration(folder)
        try:
            weights, activations, floats = (read_tensors(folder / name, REMEDY) for name in TENSOR_FILES)
            vectors = data.get("step_vectors")
            names = [n.removesuffix(".weight_q") for n in weights if n.endswith(".weight_q")]
            artifact = cls(
                model_id=data["model_id"],
                weight_hash=data["weight_hash"],
                config=data["config"],
                scheduler_config=data["scheduler_config"],
                table=SamplerTable.from_json(data["table"]),
                guidance=float(data["guidance"]),
                step_groups=tuple(tuple(steps) for steps in data["step_groups"]),
                splits={name: tuple(channels) for name, channels in data["splits"].items()},
                sites=tuple(Site.from_json(site) for site in data["sites"]),
                float_operations=tuple(FloatOp(*op) for op in data["float_operations"]),
                layers={n: LayerWeights(weights[f"{n}.weight_q"], weights[f"{n}.weight_scale"]) for n in names},
                scale=activations["scale"],
                zero_point=activations["zero_point"],
                float_parameters=floats,
                record=data["record"],
                smoothed=tuple(data.get("smoothed", ())),
                module=module,
                step_vectors=None
                if vectors is None
                else StepVectors.from_json(vectors, read_tensors(folder / STEP_VECTORS, REMEDY)),
                output_ranges=OutputRanges.of(data.get("outputs"), activations),
                steps=data.get("steps"),
                samplings=tuple(map(Sampling.from_json, data.get("samplings", ()))),
            )
        except DAMAGED as error:
            raise damaged(folder, error) from error
        artifact.check(folder)
        return artifact

    def check(self, folder: Path) -> None:
        """Raise ArtifactError unless shapes, ranges and fp16-exactness hold for every site."""
        check_artifact(self, folder)


def load_reference(folder: Path, sampling: Sampling | None = None) -> Reference:
    """The held-out rollouts of an artifact's folder, of the calibrated sampler or of another one. Raises ArtifactError."""
    return Reference.load(folder / (REFERENCE if sampling is None else sampling.file), REMEDY)
