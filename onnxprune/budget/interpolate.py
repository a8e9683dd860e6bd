"""Output loss at every width of a group, from measurements at a few widths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Array = np.ndarray
#: Errors and losses below this count as equal.
TINY = 1e-9
#: Bounds of the slope outside the measured widths: toward more channels, and toward fewer.
OUTWARD, INWARD = (0.7, 1.5), (1.0, 3.0)


def interpolate(error: Array, measured: Sequence[tuple[int, float]]) -> Array:
    """Output loss at every width, (widths,) like ``error``, from measured (width, loss) pairs.

    Between two measured widths the loss follows ``error`` on a log-log scale.  Outside them the nearest slope
    continues, within its bounds.  The result is monotone: keeping more units never increases the loss.
    """
    points = sorted({k: max(d, TINY) for k, d in measured}.items(), reverse=True)
    x = np.log(np.maximum([error[k] for k, _ in points], TINY))
    y = np.maximum.accumulate(np.log([d for _, d in points]))
    log_error = np.log(np.maximum(error, TINY))
    steps = np.diff(x)
    slopes = np.diff(y) / np.where(steps > 1e-9, steps, np.inf)
    first = float(np.clip(slopes[0], *OUTWARD)) if len(slopes) else 1.0
    last = float(np.clip(slopes[-1], *INWARD)) if len(slopes) else 1.0
    inside = np.interp(log_error, x, y) if len(np.unique(x)) > 1 else np.full(len(error), y[0])
    below = y[0] + first * (log_error - x[0])
    above = y[-1] + last * (log_error - x[-1])
    line = np.where(log_error < x[0], below, np.where(log_error > x[-1], above, inside))
    loss = np.exp(line)
    loss[error <= TINY] = 0.0
    return np.asarray(np.maximum.accumulate(loss[::-1])[::-1])
