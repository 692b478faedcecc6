"""The commands: arguments in, one call per command, results out. No logic lives here.

Results go to stdout (tables, or JSON with --json), everything else to stderr. ``entry`` runs them.
"""

from dq_toolchain.toolchain.cli import calibration, comparison, device, generation, judgement, layers, listing, recipe
from dq_toolchain.toolchain.cli.app import app

__all__ = ["app", "calibration", "comparison", "device", "generation", "judgement", "layers", "listing", "recipe"]
