"""The cost of an analysis grows with the number of nodes, not with its square, in any order of the file."""

from __future__ import annotations

import cProfile
import pstats
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from onnxprune import inspect
from onnxprune.budget.sensitivity import survey_of
from onnxprune.coupling.open import couple
from onnxprune.graph.load import load
from onnxprune.linear.form import layers
from onnxprune.options import Options
from onnxprune.pipeline.setup import calibrated, set_up
from onnxprune.refit.hidden import stretches

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from bench_growth import SHAPES, build

#: Twice the nodes may take this many times the calls: what is quadratic takes 4 times.
TWICE = 2.3


def calls(model: onnx.ModelProto) -> int:
    """Function calls of one analysis: as telling as time, and the same on every machine."""
    with cProfile.Profile() as profile:
        inspect(model)
    return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_twice_the_nodes_take_twice_the_calls(shape: str, backwards: bool) -> None:
    small, large = (build(shape, count, backwards) for count in (150, 300))
    assert calls(large) <= TWICE * calls(small) * len(large.graph.node) / (2 * len(small.graph.node))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_order_of_the_file_changes_nothing(shape: str) -> None:
    forward, reverse = (inspect(build(shape, 60, backwards)) for backwards in (False, True))
    assert [(g.name, g.before, g.locked) for g in forward.groups] == [
        (g.name, g.before, g.locked) for g in reverse.groups
    ]


def test_twice_the_layers_take_twice_the_calls_to_find_hidden_ones() -> None:
    found = []
    for count in (100, 200):
        coupling = couple(build("convs", count, False), {}, None)
        known = layers(coupling)
        with cProfile.Profile() as profile:
            hidden = stretches(coupling, known)
        assert sum(map(bool, hidden.values())) > count / 4
        found.append(int(pstats.Stats(profile).total_calls))  # type: ignore[attr-defined]
    assert found[1] <= TWICE * found[0]


def test_layers_that_run_once_per_sample_are_measured_on_fewer_samples() -> None:
    """Small layers cost their starts.  With a fixed batch every sample starts them all, and the allowance counts that."""
    options = Options(threads=1, samples=160)
    context = set_up(load(build("convs", 120, False)), None, options)
    given = calibrated(context, {}, context.holdout, options)
    found = []
    for limit in (1, 8, None):
        bounded = replace(given, dataset=replace(given.dataset, batch_limit=limit))
        found.append(survey_of(bounded, frozenset(), 1e10, 32).samples)
    assert found == sorted(found) and found[0] < found[1]
