"""Where the model lies that ships with the project: apart from what reads models, so that a recipe finds it at once."""

from __future__ import annotations

from pathlib import Path

EMBEDDED = Path(__file__).parent / "digits"
