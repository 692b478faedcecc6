"""The bundle for ExecuTorch that its own tests have."""

from __future__ import annotations

from tests.backends.executorch.conftest import small

__all__ = ["small"]
