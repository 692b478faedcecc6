"""What [coreai] of a recipe and the flags of `export` set."""

from __future__ import annotations

from dq_toolchain.backends.common.qdq.settings import QDQSettings


class Settings(QDQSettings):
    """[coreai]"""

    EXAMPLE = "--layout neural-engine"
