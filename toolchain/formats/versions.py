"""The version of dq-toolchain itself, as artifacts and reports record it."""

from __future__ import annotations

import sys


def own_version() -> str:
    """Of the package that is running: known too where nothing is installed and the sources are on the path.

    Not imported by name: the package stands on this module.
    """
    version: str = sys.modules["dq_toolchain"].__version__
    return version
