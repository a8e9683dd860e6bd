"""Outputs that look dead or constant are named; others are not."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune import metrics

GENERATOR = np.random.default_rng(0)
SCORES = GENERATOR.normal(size=(16, 5))
WINNER = SCORES + np.eye(5)[2] * 100


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (SCORES, None),
        (np.zeros((16, 5)), "is zero for every sample"),
        (np.ones((16, 3, 3)) + 1e-9 * GENERATOR.normal(size=(16, 3, 3)), "hardly changes"),
        (np.where(SCORES > 2, np.nan, SCORES) * np.inf, "NaN or infinity"),
        (WINNER, "same top-1 class, 2"),
        (WINNER[:, :, None], None),
        (np.zeros((16, 5), dtype=np.int64), None),
        (np.zeros((4, 5)), None),
    ],
)
def test_suspicious_outputs(output: np.ndarray, said: str | None) -> None:
    told = metrics.suspicious(("y",), (output,), len(output))
    if said is None:
        assert told == ()
    else:
        (text,) = told
        assert said in text
        assert "'y'" in text
        assert "--preprocess" in text
