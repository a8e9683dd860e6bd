"""Real exported models: a random cut of 40 % of every group computes what the masked original computes.

Needs ONNXPRUNE_ASSETS, a folder with models in it; every .onnx file below it is one test.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import pruned, random_keep, relative_error, run

from onnxprune.coupling.open import couple
from onnxprune.coupling.why import tell
from onnxprune.engine.probe import plausible_feeds
from onnxprune.graph.inputs import input_shapes
from onnxprune.graph.load import load
from onnxprune.surgery.cut import mask
from onnxprune.verify.checks import interface

ASSETS = os.environ.get("ONNXPRUNE_ASSETS", "")
MODELS = sorted(Path(ASSETS).rglob("*.onnx")) if ASSETS else []
#: The largest relative difference that float32 arithmetic in another order explains.
TOLERANCE = 1e-4


@pytest.mark.skipif(not ASSETS, reason="ONNXPRUNE_ASSETS is not set: no real models to check")
def test_the_assets_hold_models() -> None:
    assert MODELS, f"no .onnx file below {ASSETS}"


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.stem)
def test_a_real_model_survives_a_random_cut(path: Path) -> None:
    model = load(path).proto
    coupling = couple(model, {}, None)
    assert coupling.groups, [tell(held.reason) for held in coupling.held]
    keep = random_keep(coupling, 0)
    assert not keep.all()
    small, masked = pruned(coupling, keep), mask(coupling, keep)
    onnx.checker.check_model(small)
    assert interface(small) == interface(model)
    assert small.ByteSize() < model.ByteSize()
    feeds = plausible_feeds(coupling.graph, input_shapes(coupling.graph, {}, None)[0])
    for got, wanted, original in zip(run(small, feeds), run(masked, feeds), run(model, feeds), strict=True):
        assert np.isfinite(got).all() or not np.isfinite(original).all()
        assert relative_error(got, wanted, original) <= TOLERANCE
