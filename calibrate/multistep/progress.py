"""How far a fit is, as its checkpoint holds it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Progress:
    """The part of a fit's state that is not tensors.

    Attributes:
        best: error of the best iterate so far. A stage ends with that iterate, so the next one begins with its error.
        seconds: of work until the last checkpoint.
    """

    stage: int = 0
    iteration: int = 0
    best: float = math.inf
    first_loss: float = 0.0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain values: no error yet is null."""
        return {**vars(self), "best": self.best if math.isfinite(self.best) else None}

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> Progress:
        """What ``to_json`` gave."""
        return cls(**{**state, "best": math.inf if state["best"] is None else state["best"]})
