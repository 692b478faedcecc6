"""What [qnn] of a recipe and the flags of `export` set."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from dq_toolchain.backends.qnn.chips import EMULATED, SOCS
from dq_toolchain.toolchain.recipe.sections import TargetSection


class Settings(TargetSection):
    """[qnn]"""

    EXAMPLE = f"--soc {EMULATED}"

    form: Literal["a16", "a8"] = Field(
        default="a16",
        description="activations of products: a16 in uint16, of an artifact with activation_bits 16 and ranges of outputs; a8 in "
        "uint8, of one with activation_bits 8 and fitted outputs",
    )
    soc: str | None = Field(
        default=None,
        description=f"comma-separated chips that a context file is compiled for, of {', '.join(SOCS)}; default: none, graphs only",
    )
    check_build: bool = Field(
        default=False, description="compile with Qualcomm's own compiler here: is every product integer?"
    )

    @field_validator("soc")
    @classmethod
    def _is_known(cls, text: str | None) -> str | None:
        names = [] if text is None else _names(text)
        wrong = [name for name in names if name not in SOCS]
        if text is not None and (wrong or not names or len(set(names)) < len(names)):
            raise ValueError(f"takes {', '.join(SOCS)}, comma-separated, each once; write such as {EMULATED}")
        return text

    @property
    def chips(self) -> tuple[str, ...]:
        """Those of ``soc``."""
        return () if self.soc is None else tuple(_names(self.soc))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]
