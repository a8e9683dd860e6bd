"""Confidence intervals: Wilson for shares, the bootstrap for everything else."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Array = np.ndarray
#: Two-sided 95 % of the normal distribution.
Z = 1.959964
#: Resamples of a bootstrap.  With this number, the ends of a 95 % interval vary by about a tenth of its width.
RESAMPLES = 200


def wilson(share: float, samples: int) -> tuple[float, float]:
    """95 % interval of a ``share`` measured on ``samples`` samples (Wilson 1927).

    >>> low, high = wilson(0.0, 100)
    >>> round(low, 3), round(high, 3)
    (0.0, 0.037)
    """
    if samples < 1:
        return 0.0, 1.0
    spread = Z * Z / samples
    centre = share + spread / 2
    half = Z * math.sqrt(share * (1 - share) / samples + spread / (4 * samples))
    low, high = (centre - half) / (1 + spread), (centre + half) / (1 + spread)
    # Rounding must not exclude the share itself.
    return min(max(low, 0.0), share), max(min(high, 1.0), share)


def standard_error(low: float | None, high: float | None) -> float:
    """Half the 95 % interval over :data:`Z`; 0 without an interval.  Approximate where the interval is lopsided.

    >>> round(standard_error(0.1, 0.3), 3)
    0.051
    """
    if low is None or high is None or not math.isfinite(high - low):
        return 0.0
    return (high - low) / (2 * Z)


def bootstrap(statistic: Callable[[Array], float], samples: int, resamples: int = RESAMPLES) -> tuple[float, float]:
    """95 % percentile interval of ``statistic(indices)`` over resamples of the samples, with replacement.

    The seed is fixed: the same statistic gives the same interval.  Ignores resamples for which the statistic is NaN or
    infinite.  Cost: ``resamples`` calls.  Source: Efron and Tibshirani 1993, chapter 13.
    """
    generator = np.random.default_rng(0)
    drawn = [statistic(generator.integers(0, samples, samples)) for _ in range(resamples)]
    known = [value for value in drawn if math.isfinite(value)]
    if not known:
        return math.nan, math.nan
    low, high = np.quantile(known, (0.025, 0.975))
    return float(low), float(high)
