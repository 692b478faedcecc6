"""The chips that a bundle can hold a context for."""

from __future__ import annotations

SOCS = {"SM8550": (43, 73), "SM8650": (57, 75), "SM8750": (69, 79), "SM8850": (87, 81)}
"""Chip -> (soc_model, htp_arch), the numbers that Qualcomm's libraries take. Source: ExecuTorch's qc_schema.py."""
EMULATED = "SM8750"
"""The chip that is compiled for and emulated where none is named."""
