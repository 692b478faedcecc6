"""The three distributions that judging needs, from scipy's special functions: scipy.stats takes a second to import."""

from __future__ import annotations

import math
from collections.abc import Sequence


def student_quantiles(share: float, freedoms: Sequence[int]) -> list[float]:
    """The values below which a share of Student's t distribution lies, for each number of degrees of freedom."""
    from scipy.special import stdtrit

    found: list[float] = stdtrit(freedoms, share).tolist()
    return found


def binomial_at_least(count: int, trials: int, chance: float) -> float:
    """Chance of ``count`` or more hits in ``trials`` independent trials of a chance each."""
    from scipy.special import betainc

    return 1.0 if count <= 0 else 0.0 if count > trials else float(betainc(count, trials - count + 1, chance))


def beta_binomial_at_most(count: int, trials: int, hits: float, misses: float) -> float:
    """Chance of ``count`` hits or fewer in ``trials`` trials whose common chance has the distribution Beta(hits, misses)."""
    import numpy as np
    from scipy.special import betaln

    if count >= trials:
        return 1.0
    found = np.arange(count + 1)
    ways = -math.log(trials + 1) - betaln(trials - found + 1, found + 1)
    return float(np.exp(ways + betaln(found + hits, trials - found + misses) - betaln(hits, misses)).sum())
