"""Random graphs, cut at random, compute what the masked original computes.

ONNXPRUNE_RANDOM_GRAPHS=N checks N graphs instead of 200.
"""

from __future__ import annotations

import os

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from random_graphs import random_model

from onnxprune.coupling.open import couple
from onnxprune.surgery.cut import cut, mask

COUNT = int(os.environ.get("ONNXPRUNE_RANDOM_GRAPHS", "200"))
TOLERANCE = 1e-4
ort.set_default_logger_severity(4)


def run(model: onnx.ModelProto, image: np.ndarray) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {"image": image}))


def worst_error(seed: int) -> tuple[int, float]:
    """(number of groups, worst relative difference of the cut from the masked original) of one seed's graph."""
    model = random_model(seed)
    onnx.checker.check_model(model, full_check=True)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    side = dims[2].dim_value
    batches = (2,) if dims[0].HasField("dim_value") else (2, 3)
    coupling = couple(model, {}, None)
    assert coupling.groups or coupling.held, "nothing can be cut, and nothing says why"
    worst = 0.0
    for attempt in range(2 if coupling.groups else 0):
        rng = np.random.default_rng([seed, attempt])
        keep = np.ones(coupling.unit_count, np.bool_)
        for group in coupling.groups:
            if rng.random() < 0.8:
                keep[rng.permutation(group.units)[: rng.integers(0, len(group))]] = False
        small, masked = cut(coupling, keep), mask(coupling, keep)
        onnx.checker.check_model(small, full_check=True)
        for batch in batches:
            image = rng.standard_normal((batch, 3, side, side)).astype(np.float32)
            for a, b, c in zip(run(small, image), run(masked, image), run(model, image), strict=True):
                assert a.shape == b.shape == c.shape
                scale = max(float(np.abs(b).max()), float(np.abs(c).max()), 1e-6)
                worst = max(worst, float(np.abs(a - b).max()) / scale)
    return len(coupling.groups), worst


@pytest.mark.parametrize("start", range(0, COUNT, 20))
def test_random_cuts_equal_the_masked_original(start: int) -> None:
    wrong: list[str] = []
    grouped = 0
    for seed in range(start, min(start + 20, COUNT)):
        try:
            groups, worst = worst_error(seed)
        except Exception as error:
            wrong.append(f"seed {seed}: {type(error).__name__}: {str(error)[:200]}")
            continue
        grouped += groups > 0
        if not worst <= TOLERANCE:
            wrong.append(f"seed {seed}: {worst:.1e}")
    assert not wrong, "\n".join(wrong)
    # The generator makes graphs whose channels are all tied into one, too.
    assert grouped >= 0.75 * min(20, COUNT - start), "too few of these graphs could be cut at all"


def test_a_seed_gives_the_same_bytes() -> None:
    assert random_model(3).SerializeToString() == random_model(3).SerializeToString()
