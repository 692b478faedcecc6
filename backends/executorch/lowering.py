"""From the calibration artifact to a bundle folder: lower, read back and audit, execute, and only then publish.

Everything is written beside the target folder first; a failure anywhere leaves no bundle and no half of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from diffusers.models.downsampling import Downsample2D
from torch import Tensor, nn

from dq_toolchain.backends.base import Say
from dq_toolchain.backends.common.call import Call, example_call
from dq_toolchain.backends.common.checks import check_size
from dq_toolchain.backends.common.cost import Cost
from dq_toolchain.backends.common.outputs import output_qparams, output_reference
from dq_toolchain.backends.common.parts import add_parts
from dq_toolchain.backends.common.samplings import Judged, other_samplings
from dq_toolchain.backends.common.schedule import Schedule
from dq_toolchain.backends.common.sealing import seal_bundle
from dq_toolchain.backends.common.smoke import smoke
from dq_toolchain.backends.common.staging import staging
from dq_toolchain.backends.common.step_rows import write_step_rows
from dq_toolchain.backends.executorch.graph.layers import Geometry, RangesInput, SentinelLayer, StaticLayer, range_table
from dq_toolchain.backends.executorch.graph.program import call_counts, export, lower_methods, with_integer_layers
from dq_toolchain.backends.executorch.graph.rewrites import rewrite
from dq_toolchain.backends.executorch.parts import lower_part, open_part
from dq_toolchain.backends.executorch.proof.audit import StaticQParams, audit
from dq_toolchain.backends.executorch.proof.pte_file import read_pte
from dq_toolchain.backends.executorch.runtime.device import Device
from dq_toolchain.backends.executorch.runtime.sampler import executor
from dq_toolchain.backends.executorch.settings import Settings
from dq_toolchain.backends.executorch.support import check_static_biases, check_supported
from dq_toolchain.backends.executorch.vendor import LIBRARY
from dq_toolchain.toolchain.disk.files import write_bytes, write_tensors
from dq_toolchain.toolchain.formats.artifact import Artifact, load_reference
from dq_toolchain.toolchain.formats.bundle import RANGES, Bundle
from dq_toolchain.toolchain.formats.reference import FILE as REFERENCE
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.parts.artifact import PartsArtifact
from dq_toolchain.toolchain.verdict.limits import limits_for, twin_outputs

PROGRAM = "model.pte"
TARGET = "executorch"
FORMS = {"input": "sentinel", "methods": "static"}
"""What bundle.json calls the forms of the program."""
METHOD = "forward"
"""Of the form that has one for all step groups."""
COST = Cost(library_mb=700, written=8.0, executed=2.0, seconds_per_layer=0.9)
"""Measured by `python -m benchmarks.sd15_chain` and `benchmarks.executorch_size`."""


@dataclass(frozen=True)
class _Lowered:
    """A lowered program with what the audit and the bundle need to know about it."""

    data: bytes
    methods: tuple[str, ...]
    ranges: Tensor | None
    static: dict[str, StaticQParams] | None
    reference: Reference
    limits: Mapping[str, Any]
    judged: Callable[[Artifact, Reference], Judged]


def sentinel_program(artifact: Artifact, fp32: nn.Module, call: Call) -> tuple[bytes, Tensor]:
    """The .pte whose one method takes ranges as an input, and the ranges (G, 2L) float32 of every step group.

    Args:
        network: ``artifact.build_float_unet()``; its layers are replaced in place.
    Raises:
        BackendError: executorch refuses the network.
    """
    port, ranges = RangesInput(), range_table(artifact.scale, artifact.zero_point)

    def layer(name: str, module: nn.Conv1d | nn.Conv2d | nn.Linear, geometry: Geometry) -> nn.Module:
        index = artifact.site_index(name)
        bits = artifact.sites[index].weight_bits or 8
        return SentinelLayer(artifact.layers[name], module.bias, geometry, bits, index, port)

    network = with_integer_layers(rewrite(fp32), call, layer, artifact.float_layers)
    return lower_methods({METHOD: export(network, call, ranges[:1], port)}), ranges


def _lower_sentinel(artifact: Artifact, reference: Reference, network: nn.Module, call: Call, say: Say) -> _Lowered:
    say(f"lowering one method for {len(artifact.step_groups)} step groups")
    data, ranges = sentinel_program(artifact, network, call)
    return _Lowered(data, (METHOD,), ranges, None, *_with_twin(artifact, reference), _with_twin)


def _with_twin(artifact: Artifact, reference: Reference) -> Judged:
    return reference, limits_for(reference, twin_outputs(artifact, reference))


def _lower_static(artifact: Artifact, reference: Reference, call: Call, say: Say) -> _Lowered:
    say("measuring the ranges of outputs")
    outputs = output_qparams(artifact, reference)
    static = {f"step_group_{g}": StaticQParams.of_group(artifact, outputs, g) for g in range(len(artifact.step_groups))}
    exported = {}
    skips = {
        "conv_in",
        *(
            f"{name}.conv"
            for name, module in artifact.build_float_unet().named_modules()
            if isinstance(module, Downsample2D)
        ),
    }
    for method, qparams in static.items():

        def layer(
            name: str, module: nn.Conv1d | nn.Conv2d | nn.Linear, geometry: Geometry, qparams: StaticQParams = qparams
        ) -> nn.Module:
            bits = artifact.sites[artifact.site_index(name)].weight_bits or 8
            entry, result = qparams.entries[name], qparams.results[name]
            return StaticLayer(artifact.layers[name], module.bias, geometry, bits, entry, result, name in skips)

        network = with_integer_layers(rewrite(artifact.build_float_unet()), call, layer, artifact.float_layers)
        exported[method] = export(network, call)
    say(f"lowering {len(static)} methods, one per step group")
    data = lower_methods(exported)
    judged = partial(output_reference, outputs=outputs)
    return _Lowered(data, tuple(static), None, static, *judged(artifact, reference), judged)


def lower(
    artifact: Artifact,
    artifact_folder: Path,
    out: Path,
    settings: Settings,
    say: Say,
    parts: PartsArtifact | None = None,
) -> Bundle:
    """Write the bundle folder ``out``: model.pte, ranges and reference, the parts, bundle.json last.

    Raises:
        BackendError: a site cannot be held, executorch refuses the network, the file differs from the artifact, or
            it does not execute as the simulation does. No bundle is left then.
        ToolchainError: ``out`` cannot be written.
    """
    reference = load_reference(artifact_folder)
    check_size(artifact, reference, TARGET)
    if settings.step_groups_as == "methods":
        check_static_biases(artifact)
    network = artifact.build_float_unet()
    check_supported(artifact, network, ranges_as_input=settings.step_groups_as == "input")
    call = example_call(artifact, reference)
    calls = call_counts(network, call)
    say(f"lowering {len(artifact.sites)} sites; needs {COST.of(artifact, call)}")
    if settings.step_groups_as == "input":
        lowered = _lower_sentinel(artifact, reference, network, call, say)
    else:
        lowered = _lower_static(artifact, reference, call, say)
    with staging(out) as folder:
        write_bytes(folder / PROGRAM, lowered.data)
        lowered.reference.save(folder / REFERENCE)
        if lowered.ranges is not None:
            write_tensors(folder / RANGES, {"ranges": lowered.ranges})
        say("reading the file back: every integer, scale and zero_point")
        operations = audit(read_pte(folder / PROGRAM), artifact, lowered.ranges, lowered.static, calls)
        groups = artifact.group_of_step
        methods = tuple(lowered.methods[g if lowered.static else 0] for g in groups)
        write_step_rows(artifact, folder)
        schedule = Schedule(methods, groups, lowered.ranges, artifact.step_rows)
        execute = executor(Device(folder / PROGRAM, lowered.methods), schedule)
        say("executing it once per step group")
        smoke(execute, artifact.table, artifact.guidance, groups, lowered.reference)
        add_parts(parts, artifact_folder, folder, lower_part, open_part, say, COST)
        seal_bundle(
            folder,
            artifact,
            call.with_ranges(None if lowered.ranges is None else lowered.ranges[:1]),
            target=TARGET,
            form=FORMS[settings.step_groups_as],
            program=PROGRAM,
            methods=lowered.methods,
            operations=operations,
            limits=lowered.limits,
            libraries=(LIBRARY,),
            samplings=other_samplings(artifact, artifact_folder, folder, lowered.judged),
        )
    return Bundle.load(out)
