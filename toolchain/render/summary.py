"""What the commands print: calibration, bundle, inspection and targets, as plain data and as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from dq_toolchain.toolchain.console.printable import printable
from dq_toolchain.toolchain.console.terminal import line, plain
from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.formats.bundle import JSON as BUNDLE
from dq_toolchain.toolchain.formats.bundle import Bundle
from dq_toolchain.toolchain.formats.listing import JSON as CALIBRATION
from dq_toolchain.toolchain.formats.listing import Listing
from dq_toolchain.toolchain.formats.site_rows import site_rows
from dq_toolchain.toolchain.metrics import psnr
from dq_toolchain.toolchain.recipe.budget import Budget

if TYPE_CHECKING:
    from dq_toolchain.toolchain.formats.artifact import Artifact
    from dq_toolchain.toolchain.formats.reference import Reference


def calibration_summary(folder: Path, artifact: Artifact, reference: Reference) -> dict[str, Any]:
    """Where the artifact is and how its simulation does on the held-out seeds."""
    values = psnr(reference.simulation_latents[-1], reference.fp32_latents[-1])
    return {
        "calibration": str(folder),
        "model": artifact.model_id,
        "sites": len(artifact.sites),
        "step_groups": len(artifact.step_groups),
        "network_calls": artifact.table.calls,
        "guidance": artifact.guidance,
        "held_out_seeds": reference.seeds,
        "simulation_psnr_median": float(values.quantile(0.5)),
        "simulation_psnr_p10": float(values.quantile(0.1)),
        "stages": artifact.record.get("stages", []),
        "budget": _budget(artifact, float(values.quantile(0.5))),
    }


def _budget(artifact: Artifact, psnr_median: float) -> dict[str, Any] | None:
    """What was asked and what became of it; None without a budget."""
    spent = artifact.record.get("budget")
    if spent is None:
        return None
    asked = Budget.parse(spent["asked"])
    widths = Counter(site.weight_bits for site in artifact.sites if site.weight_bits is not None)
    return {
        "asked": spent["asked"],
        "size": spent["size"],
        "psnr_before_fit": spent["psnr_before_fit"],
        "layers": {str(bits): widths[bits] for bits in sorted(widths)},
        "in_float": len(artifact.float_layers),
        "met": asked.psnr is None or psnr_median >= asked.psnr,
    }


def show_calibration(console: Console, summary: Mapping[str, Any]) -> None:
    """Print ``calibration_summary``."""
    for stage in (s for s in summary["stages"] if "rows" in s):
        console.print(line(f"{stage['stage']:22} {stage['rows']:5} rows"))
    for stage in (s for s in summary["stages"] if "validation_psnr" in s):
        console.print(
            line(
                f"{stage['stage']:22} {stage['iterations']:5} iterations   "
                f"validation PSNR {stage['validation_psnr']:.1f} dB"
            )
        )
    units = [s for s in summary["stages"] if "unit" in s]
    for phase in dict.fromkeys(unit["phase"] for unit in units):
        left = [u["after"] / u["before"] for u in units if u["phase"] == phase and u["before"] > 0]
        share = median(left or [1.0])
        console.print(
            line(f"{phase:22} {len(left):5} units        error of a unit's output: {share:.2f} of before, median")
        )
    console.print(
        line(
            f"{summary['sites']} sites, {summary['step_groups']} step groups over "
            f"{summary['network_calls']} network calls"
        )
    )
    console.print(
        line(
            "held-out samples against FP32, integer simulation: median PSNR ",
            plain(f"{summary['simulation_psnr_median']:.1f} dB", "bold"),
            f", 10th percentile {summary['simulation_psnr_p10']:.1f} dB ({summary['held_out_seeds']} seeds)",
        )
    )
    if summary["budget"] is not None:
        _show_budget(console, summary["budget"])
    console.print(line("calibration: ", plain(summary["calibration"])), soft_wrap=True)
    console.print("next: dq-toolchain export")


def _show_budget(console: Console, budget: Mapping[str, Any]) -> None:
    layers = ", ".join(f"{count} layers of {bits} bits" for bits, count in budget["layers"].items())
    kept = f", {budget['in_float']} in float" if budget["in_float"] else ""
    met = plain("met") if budget["met"] else plain("not met", "red")
    console.print(
        line("budget ", plain(budget["asked"]), " ", met, f": {budget['size']:.3f} of FP32's weights, {layers}{kept}")
    )


def bundle_summary(folder: Path, bundle: Bundle) -> dict[str, Any]:
    """Where the bundle is, its sizes and its operations."""
    return {
        "bundle": str(folder),
        "target": bundle.target,
        "form": bundle.form,
        "methods": list(bundle.methods),
        "step_groups": len(bundle.step_groups),
        "sizes": dict(bundle.sizes),
        "operations": [vars(operation) for operation in bundle.operations],
    }


def show_bundle(console: Console, summary: Mapping[str, Any]) -> None:
    """Print ``bundle_summary``."""
    table = Table("operation", "where", "arithmetic", "count", "why", title="operations of the lowered program")
    for row in summary["operations"]:
        table.add_row(*(plain(row[key]) for key in ("name", "where", "arithmetic", "count", "why")))
    console.print(table)
    for name, size in summary["sizes"].items():
        console.print(line(f"{printable(name):28} {size:>12,} bytes"), soft_wrap=True)
    console.print(
        line("bundle: ", plain(summary["bundle"]), " (integers audited in the file, executed once per step group)"),
        soft_wrap=True,
    )
    console.print(line("next: dq-toolchain run --target ", plain(summary["target"])), soft_wrap=True)


def inspect_folder(folder: Path) -> dict[str, Any]:
    """Sites and float operations of an artifact, or operations of a bundle. Raises ArtifactError."""
    if (folder / BUNDLE).is_file():
        return bundle_summary(folder, Bundle.load(folder))
    if not (folder / CALIBRATION).is_file():
        raise ArtifactError(
            f"{folder} holds neither {CALIBRATION} nor {BUNDLE}; run `dq-toolchain calibrate` first or give "
            "an artifact or bundle folder"
        )
    artifact = Listing.load(folder)
    return {
        "calibration": str(folder),
        "model": artifact.model_id,
        "step_groups": [list(s) for s in artifact.step_groups],
        "sites": site_rows(artifact),
        "outputs": [] if artifact.output_ranges is None else artifact.output_ranges.rows(),
        "float_operations": [vars(op) for op in artifact.float_operations],
        "method": artifact.record.get("recipe", {}).get("calibrate", {}).get("method"),
        "step_vectors": artifact.step_vectors and {"calls": artifact.table.calls, **artifact.step_vectors},
        "correction": None if artifact.table.correction is None else artifact.table.correction.to_json(),
    }


def show_inspection(console: Console, inspection: Mapping[str, Any]) -> None:
    """Print ``inspect_folder``."""
    if "operations" in inspection:
        show_bundle(console, inspection)
        return
    groups = len(inspection["step_groups"])
    table = Table(
        "site",
        "kind",
        "W bits",
        "A bits",
        "scheme",
        *(f"range, step group {g}" for g in range(groups)),
        title=line(f"{len(inspection['sites'])} sites of ", plain(inspection["model"])),
    )
    for row in inspection["sites"]:
        table.add_row(
            plain(row["site"]),
            plain(row["kind"]),
            str(row["weight_bits"] or "-"),
            str(row["activation_bits"]),
            plain(row["scheme"]),
            *(f"{low:.3g} .. {high:.3g}" for low, high in row["range"]),
        )
    console.print(table)
    if inspection["outputs"]:
        outputs = Table("result of a product", *(f"values, step group {g}" for g in range(groups)))
        for row in inspection["outputs"]:
            outputs.add_row(plain(row["output"]), *(f"{low:.3g} .. {high:.3g}" for low, high in row["range"]))
        console.print(outputs)
    floats = Table("stays in float", "kind", "why")
    for row in inspection["float_operations"]:
        floats.add_row(plain(row["layer"]), plain(row["kind"]), plain(row["reason"]))
    console.print(floats)
    if inspection["step_vectors"] is not None:
        _show_step_vectors(console, inspection["step_vectors"])
    if inspection["correction"] is not None:
        console.print(
            "the sampler table corrects inputs and outputs of the network (calibration.json, table.correction)"
        )


def _show_step_vectors(console: Console, given: Mapping[str, Any]) -> None:
    vectors = Table("step vector", "numbers per step", title=f"a row for each of {given['calls']} network calls")
    for row in given["vectors"]:
        vectors.add_row(plain(row["name"]), str(prod(row["shape"])))
    console.print(vectors)
    total = sum(prod(row["shape"]) for row in given["vectors"])
    console.print(f"the network takes them in the place of its timestep: {total} numbers per step")


def show_targets(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    """Print the targets."""
    table = Table("target", "library", "installed", "schemes", "weight bits", "latents", "verified")
    for row in found:
        bits, schemes = ", ".join(map(str, row["weight_bits"])), ", ".join(row["schemes"])
        installed = row["version"] or f"no: {row['install']}"
        name = f"{row['name']} (default)" if row["default"] else row["name"]
        sides = "any size" if row["any_size"] else "sides that are multiples of the network's downsampling"
        table.add_row(*map(plain, (name, row["library"], installed, schemes, bits, sides, row["verified"])))
    console.print(table)
