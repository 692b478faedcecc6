"""torch.export and coremltools: from the tagged UNet to an .mlpackage with one function.

Source: what was measured to work with coremltools 9.0, and what miscompiles, is in docs/COREML.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dq_toolchain.backends.common.call import OUTPUT, Call, PositionalNetwork
from dq_toolchain.backends.common.qdq.entries import RangesInput
from dq_toolchain.backends.common.quiet import quiet
from dq_toolchain.backends.coreml.graph.lut import lut_pass
from dq_toolchain.backends.coreml.graph.without_effect import without_effect
from dq_toolchain.backends.coreml.settings import Settings
from dq_toolchain.backends.coreml.vendor import NOISE, coremltools
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.bundle import Port

WRONG_PASSES = (
    "common::int_op_canonicalization",  # makes DQ(s1) -> reshape -> Q(s2) a reshape of integers without comparing s1 and s2
    "common::fuse_elementwise_to_batchnorm",  # divides by sqrt(1 + 1e-5): 5e-6 off, the places of 100 roundings in fp32
)
"""Passes of coremltools 9.0 that change what the network computes."""
SINUSOID = ("sin", "cos")
INPUT_TYPES = {"float32": np.float32, "int64": np.int32}


def _feeds_sinusoid(op: Any, depth: int = 6) -> bool:
    """Whether an operation is a sine or cosine, or one of the few between the timestep and them."""
    if op.op_type in SINUSOID:
        return True
    small = depth > 0 and all(out.rank <= 2 for out in op.outputs)
    return small and any(_feeds_sinusoid(child, depth - 1) for out in op.outputs for child in out.child_ops)


def convert(network: nn.Module, call: Call, settings: Settings, path: Path, ranges: RangesInput | None = None) -> None:
    """Write the .mlpackage of one function, ``main``.

    The sinusoids of the timestep stay in fp32 whatever the precision, their angles reach 1000 radians.

    Args:
        settings: of the recipe; from it iOS, precision and whether weights become tables.
        ranges: where the network looks for ``call.ranges``.
    Raises:
        BackendError: coremltools refuses the network.
    """
    whole = PositionalNetwork(network, tuple(call.conditioning), None if ranges is None else ranges.set)
    half = settings.precision == "fp16"
    write_package(whole, call.arguments, call.inputs, (OUTPUT,), settings, path, half=half, what="this network")


def write_package(
    whole: nn.Module,
    arguments: Sequence[Tensor],
    inputs: Sequence[Port],
    outputs: Sequence[str],
    settings: Settings,
    path: Path,
    *,
    half: bool,
    what: str,
) -> None:
    """Write the .mlpackage of a module, as one function ``main``; labels and token ids are int32 in it.

    Args:
        arguments: one for each of ``inputs``. half: in fp16. what: for the text of an error.
    Raises:
        BackendError: coremltools refuses the module.
    """
    ct, pipeline = coremltools(), right_passes()
    if settings.lut:
        pipeline.append_pass(lut_pass())
    fp16 = ct.transform.FP16ComputePrecision(op_selector=lambda op: not _feeds_sinusoid(op))
    types = [ct.TensorType(name=port.name, shape=port.shape, dtype=INPUT_TYPES[port.dtype]) for port in inputs]
    try:
        with quiet(NOISE), torch.no_grad():
            program = torch.export.export(whole, tuple(arguments), strict=False)
            model = ct.convert(
                without_effect(program.run_decompositions({})),
                convert_to="mlprogram",
                inputs=types,
                outputs=[ct.TensorType(name=name, dtype=np.float32) for name in outputs],
                minimum_deployment_target=deployment_target(settings),
                skip_model_load=True,
                pass_pipeline=pipeline,
                compute_precision=fp16 if half else ct.precision.FLOAT32,
            )
            model.save(str(path))
    except (RuntimeError, NotImplementedError, ValueError, TypeError, KeyError, AssertionError) as error:
        text = " ".join(str(error).split())
        raise BackendError(
            f"coremltools cannot convert {what}: {type(error).__name__} {text[:300]}; "
            "report it with the model's config.json"
        ) from error


def right_passes() -> Any:
    """coremltools' default passes without the wrong ones."""
    pipeline = coremltools().PassPipeline.DEFAULT
    pipeline.remove_passes(set(WRONG_PASSES))
    return pipeline


def deployment_target(settings: Settings) -> Any:
    """coremltools' name for the oldest system that runs the package."""
    return getattr(coremltools().target, f"iOS{settings.ios}")
