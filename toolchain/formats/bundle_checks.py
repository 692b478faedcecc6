"""What ``run``, ``doctor``, ``validate`` and every program on a device demand of a bundle, beyond what its schema says.

One place, so that none of them takes what another refuses; ``runtime_samples/golden/damaged-bundles`` holds them to it.
"""

from __future__ import annotations

import math
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dq_toolchain.toolchain.checks import Check
from dq_toolchain.toolchain.quant.qparams import ACTIVATION_BITS, ALLOWED_ACTIVATION_BITS, WEIGHT_BITS

if TYPE_CHECKING:
    from dq_toolchain.toolchain.formats.bundle import Bundle, OtherSampling, Port
    from dq_toolchain.toolchain.formats.reference import Reference

LARGEST_FLOAT32 = (2 - 2**-23) * 2.0**127
MOST_ELEMENTS = 2**31 - 1
"""Of one input or output of a program; a latent of 8K pictures has 4 million."""
FIXED_INPUTS = ("sample", "timestep", "ranges", "step_vectors")
"""Inputs of the program that are no conditioning."""
STEP_VECTORS = "step_vectors.safetensors"
"""In an artifact or bundle whose network takes step vectors in the place of the timestep."""
OTHER_STEP_VECTORS = "step_vectors-*.safetensors"
"""Of other step counts, in a bundle."""


def plain_name(name: str) -> bool:
    """Whether a name stays inside its folder on every system: no empty part, no ``.`` or ``..``, no backslash or drive letter."""
    parts = name.split("/")
    odd = any(part in ("", ".", "..") or len(part) > 255 for part in parts)
    return not odd and name.isprintable() and not set("\\:") & set(name)


def file_fault(folder: Path, files: Mapping[str, str], sizes: Mapping[str, int]) -> str | None:
    """The first listed file whose name leaves the folder, that is no regular file, or has another size; None if all are well.

    A link is refused wherever it points, and a FIFO or device is not opened.
    """
    for name in files:
        if not plain_name(name):
            return f"files lists {name[:200]!r}, names must stay in the folder"
        path = folder
        for part in name.split("/"):
            path = path / part
            try:
                mode = path.lstat().st_mode
            except OSError:
                return f"{path} is missing"
            wanted = stat.S_ISREG if path == folder / name else stat.S_ISDIR
            if not wanted(mode):
                return f"{path} must be a {'file' if wanted is stat.S_ISREG else 'folder'} of its own, no link, FIFO or device"
        if name in sizes and path.lstat().st_size != sizes[name]:
            return f"{path} was changed after it was written: it has {path.lstat().st_size} bytes, sizes says {sizes[name]}"
    unknown = next((name for name in sizes if name not in files), None)
    return None if unknown is None else f"sizes names {unknown[:200]!r}, which is not in files"


def ports_fault(inputs: tuple[Port, ...], outputs: tuple[Port, ...]) -> str | None:
    """What is wrong with inputs and outputs, None if nothing is."""
    by_name = {port.name: port for port in inputs}
    if len(by_name) != len(inputs):
        return "inputs must have a name each, got one twice"
    for port in (*inputs, *outputs):
        if any(size < 1 for size in port.shape) or math.prod(port.shape) > MOST_ELEMENTS or port.shape[:1] != (1,):
            return f"{port.name} has shape {port.shape}, allowed are batch 1 and at most {MOST_ELEMENTS:,} numbers"
    sample, timestep, ranges, vectors = (by_name.get(name) for name in FIXED_INPUTS)
    if sample is None or sample.dtype != "float32" or len(sample.shape) < 3:
        return "inputs must list sample, float32 (1, C, ...)"
    if vectors is not None and (timestep is not None or vectors.dtype != "float32" or len(vectors.shape) != 2):
        return f"step_vectors must be float32 (1, V), in the place of timestep, got {vectors.dtype} {vectors.shape}"
    if vectors is None and (timestep is None or (timestep.dtype, timestep.shape) != ("float32", (1,))):
        return "inputs must list timestep, float32 (1,)"
    if ranges is not None and (ranges.dtype != "float32" or len(ranges.shape) != 2):
        return f"ranges must be float32 (1, R), got {ranges.dtype} {ranges.shape}"
    if [(port.dtype, port.shape) for port in outputs] != [("float32", sample.shape)]:
        return f"outputs must be one, float32 {sample.shape}, got {[(port.dtype, port.shape) for port in outputs]}"[
            :300
        ]
    return None


def samplings_fault(samplings: Sequence[OtherSampling], channels: int, groups: int, takes_vectors: bool) -> str | None:
    """What is wrong with the other samplers of a bundle whose program has so many step groups; None if nothing is.

    Args:
        takes_vectors: the program has the input ``step_vectors``.
    """
    for index, each in enumerate(samplings):
        sampling = each.sampling
        if fault := sampling.fault(groups):
            return fault
        if (each.step_vectors is not None) != takes_vectors:
            return (
                f"{sampling.name} must name a file of step_vectors if the program takes them, and none otherwise, got "
                f"{each.step_vectors!r}"[:300]
            )
        for what, name in (("reference", each.reference), ("step_vectors", each.step_vectors)):
            if name is not None and not plain_name(name):
                return f"{what} of {sampling.name} is {name[:200]!r}, it must be a name in the folder"
        correction = sampling.table.correction
        if correction is not None and correction.channels != channels:
            return f"the correction of {sampling.name} has {correction.channels} channels, the output has {channels}"
        if any(sampling.is_of(other.sampling.steps, other.sampling.guidance) for other in samplings[:index]):
            return f"samplings hold {sampling.name} twice"
    return None


def sites_fault(sites: tuple[Mapping[str, Any], ...], groups: int) -> str | None:
    """The first row of the table of sites that is not as ``site_rows`` writes it."""
    for row in sites:
        columns = (row["range"], row["scale"], row["zero_point"])
        if any(len(column) != groups for column in columns):
            return f"site {row['site'][:200]!r} must have range, scale and zero_point of {groups} step groups"
        pairs = all(isinstance(pair, list) and len(pair) == 2 for pair in row["range"])
        numbers = (
            [*row["scale"], *row["zero_point"], *(value for pair in row["range"] for value in pair)] if pairs else [""]
        )
        if not all(_is_float32(value) for value in numbers):
            return f"site {row['site'][:200]!r}: range must be pairs of numbers, scale and zero_point numbers, all of float32"
        bits = row["activation_bits"]
        if bits not in ACTIVATION_BITS or row["weight_bits"] not in (None, *WEIGHT_BITS):
            return (
                f"site {row['site'][:200]!r} has activations of {bits} bits and weights of {row['weight_bits']}, allowed are "
                f"{ALLOWED_ACTIVATION_BITS}, and 2-8"
            )
        ordered = all(low <= 0 <= high for low, high in row["range"])
        if not ordered or any(scale <= 0 for scale in row["scale"]):
            return f"site {row['site'][:200]!r}: a range must hold 0 and a scale be above 0"
        steps = 2**bits - 1
        for (low, high), scale in zip(row["range"], row["scale"], strict=True):
            if not math.isclose(high - low, steps * scale, rel_tol=1e-5):
                return (
                    f"site {row['site'][:200]!r}: range {low:.3g} to {high:.3g} is not {steps} times scale {scale:.3g}"
                )
    return None


def _is_float32(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST_FLOAT32


def reference_checks(bundle: Bundle, reference: Reference) -> Iterator[Check]:
    """Whether the held-out rollouts are of this program: a check doctor.NAME each."""
    table, shape = bundle.table, tuple(reference.start.shape[1:])
    fits = reference.calls == table.calls
    yield Check(
        "doctor.steps", fits, None, f"{reference.calls} steps in the reference, {table.calls} in the sampler table"
    )
    wanted = next(port.shape[1:] for port in bundle.inputs if port.name == "sample")
    yield Check("doctor.shapes", shape == wanted, None, f"latents are {shape}, the program takes {wanted}")
    yield _finite(reference)
    enough = not table.stochastic or reference.step_noise is not None
    text = "the sampler adds noise" if table.stochastic else "the sampler adds no noise"
    yield Check("doctor.noise", enough, None, text if enough else f"{text}, the reference holds no step_noise")
    yield _conditioning(bundle, reference)


def _finite(reference: Reference) -> Check:
    tensors = {name: value for name, value in vars(reference).items() if hasattr(value, "isfinite")}
    tensors |= {f"cond.{name}": value for name, value in reference.conditioning.cond.items()}
    tensors |= {f"uncond.{name}": value for name, value in reference.conditioning.uncond.items()}
    bad = next((name for name, value in tensors.items() if not bool(value.isfinite().all())), None)
    return Check(
        "doctor.finite",
        bad is None,
        None,
        "the reference is finite" if bad is None else f"the reference holds NaN or infinity, in {bad}",
    )


def _conditioning(bundle: Bundle, reference: Reference) -> Check:
    wanted = {port.name: (port.dtype, port.shape[1:]) for port in bundle.inputs if port.name not in FIXED_INPUTS}
    sides = {"cond": reference.conditioning.cond}
    guided = bundle.guidance != 1.0
    if guided:
        sides["uncond"] = reference.conditioning.uncond
    for side, tensors in sides.items():
        found = {name: (str(x.dtype).removeprefix("torch."), tuple(x.shape[1:])) for name, x in tensors.items()}
        if found != wanted:
            text = f"the program takes {wanted}, {side} of the reference holds {found}"
            return Check("doctor.conditioning", False, None, text[:600])
    return Check(
        "doctor.conditioning",
        True,
        None,
        f"conditioning {', '.join(sorted(wanted)) or 'none'}{', with guidance' if guided else ''}",
    )
