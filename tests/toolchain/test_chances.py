"""Each distribution against scipy.stats, which has the same in more words."""

from __future__ import annotations

import math

from scipy.stats import betabinom, binom, t

from dq_toolchain.toolchain.chances import beta_binomial_at_most, binomial_at_least, student_quantiles


def test_student_quantiles_are_those_of_scipy_stats() -> None:
    freedoms = [1, 2, 9, 4095]
    for share in (0.975, 1 - 5e-4, 1 - 2.5e-5):
        assert student_quantiles(share, freedoms) == t.ppf(share, freedoms).tolist()


def test_the_binomial_tail_is_that_of_scipy_stats_at_its_ends_too() -> None:
    for trials in (0, 1, 10, 400):
        for count in {0, 1, trials // 2, trials, trials + 1}:
            for chance in (1e-3, 0.5, 1.0):
                wanted = float(binom.sf(count - 1, trials, chance))
                assert math.isclose(binomial_at_least(count, trials, chance), wanted, rel_tol=1e-9, abs_tol=1e-300)


def test_the_beta_binomial_sum_is_that_of_scipy_stats() -> None:
    for trials, share in ((1, 0.2), (64, 0.05), (320, 0.9)):
        hits, misses = trials * share + 0.5, trials * (1 - share) + 0.5
        for count in {0, trials // 3, trials - 1, trials}:
            wanted = float(betabinom.cdf(count, trials, hits, misses))
            assert math.isclose(beta_binomial_at_most(count, trials, hits, misses), wanted, rel_tol=1e-9)
