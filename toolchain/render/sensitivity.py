"""Which layers' weights matter: what rounding each of them alone does to the end of the sampler, as ``--budget`` measured it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dq_toolchain.toolchain.console.terminal import plain
from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.formats.listing import JSON, Listing

Row = dict[str, Any]


def sensitivity_of(folder: Path) -> list[Row]:
    """Layers of an artifact, the most sensitive at the fewest bits first: ``layer``, ``bits`` that were chosen, ``errors`` (bits ->
    predicted mean squared error of the final latent), ``share`` of the sum over layers at the fewest bits.

    Raises:
        ArtifactError: no artifact, or one that was calibrated without a budget.
    """
    if not (folder / JSON).is_file():
        raise ArtifactError(f"{folder} holds no {JSON}; give the folder of a calibration")
    errors = (Listing.load(folder).record.get("budget") or {}).get("errors")
    if not errors:
        raise ArtifactError(
            f"{folder} was calibrated without --budget, which is what measures sensitivities; calibrate with --budget size=0.25, "
            "say"
        )
    chosen = Listing.load(folder).record["budget"]["bits"]
    fewest = {layer: each[min(each, key=int)] for layer, each in errors.items()}
    total = sum(fewest.values()) or 1.0
    return [
        {"layer": layer, "bits": chosen.get(layer), "errors": errors[layer], "share": fewest[layer] / total}
        for layer in sorted(fewest, key=lambda name: -fewest[name])
    ]


def show_sensitivity(console: Console, rows: Sequence[Row]) -> None:
    """Print ``sensitivity_of``."""
    widths = sorted({bits for row in rows for bits in row["errors"]}, key=int)
    table = Table(
        "layer", "bits chosen", *(f"error at {bits} bits" for bits in widths), f"share at {widths[0]} bits",
        title="predicted mean squared error of the final latent if this layer alone is rounded",
    )  # fmt: skip
    for row in rows:
        errors = (f"{row['errors'][bits]:.3g}" for bits in widths)
        table.add_row(plain(row["layer"]), str(row["bits"]), *errors, f"{row['share']:.1%}")
    console.print(table)
