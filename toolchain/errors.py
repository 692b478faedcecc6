"""The exception tree: every mistake a user can make ends in one of these, printed in one line with exit code 2.

Each text says what was got, what is allowed and what to do.
"""

from __future__ import annotations


class ToolchainError(Exception):
    """Base of everything the command reports without a traceback."""


class RecipeError(ToolchainError):
    """A recipe file or a flag is wrong; the text lists every mistake with its place."""


class ModelError(ToolchainError):
    """A model folder cannot be read or is of a kind that is not supported."""


class SamplerError(ToolchainError):
    """A scheduler is unknown, not linear in latent and network output, or wrongly configured."""


class ArtifactError(ToolchainError):
    """A calibration artifact, bundle or report is missing, damaged or of another schema version."""


class CalibrationError(ToolchainError):
    """Calibration cannot go on: NaN, divergence, a site without signal; the text names the site."""


class BackendError(ToolchainError):
    """A target is unknown, its library is missing, or it cannot hold what the artifact asks for."""
