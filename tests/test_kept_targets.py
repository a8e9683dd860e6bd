"""What refits read of the original is computed once per set of samples, and changes no bit of their results."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import Sketch
from test_refit import CASES, table
from workbench import OPTIONS, Bench, bench, correlated

import onnxprune
from onnxprune.engine.segment import Runner
from onnxprune.graph.view import view
from onnxprune.pipeline import candidate
from onnxprune.pipeline.allocation import Allocation
from onnxprune.pipeline.evaluator import evaluator_for
from onnxprune.pipeline.pricing import price
from onnxprune.progress import Silent
from onnxprune.refit.kept_targets import KeptTargets
from onnxprune.refit.sequential import Refit, refit
from onnxprune.surgery.cut import cut

SHARES = (0.8, 0.5, 0.3)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files go; nothing may be left there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prefix of the runner of every piece of a graph that runs: ``o:`` for the original."""
    ran: list[str] = []
    usual = Runner._run

    def noted(self: Runner, piece: list[onnx.NodeProto]) -> None:
        ran.append(self._prefix)
        usual(self, piece)  # type: ignore[arg-type]

    monkeypatch.setattr(Runner, "_run", noted)
    return ran


def refitted(on: Bench, share: float, memory: int, rounds: int, kept: KeptTargets | None) -> Refit:
    keep = on.narrowed(share)
    return refit(replace(on.calibrated, memory=memory), keep, view(cut(on.coupling, keep)), rounds, Silent(), kept)


def assert_same(one: Refit, other: Refit) -> None:
    assert one.layers == other.layers
    assert one.weights.keys() == other.weights.keys()
    for use, array in one.weights.items():
        np.testing.assert_array_equal(array, other.weights[use])


@pytest.mark.parametrize("memory", [0, 20_000, 1 << 30])
@pytest.mark.parametrize("name", CASES)
def test_refits_to_kept_targets_are_those_to_targets_computed_again(
    name: str, memory: int, scratch: Path, pieces: list[str]
) -> None:
    on, originals = table(name), []
    with KeptTargets() as kept:
        for share, rounds in zip(SHARES, (0, 1, 0), strict=True):
            alone = refitted(on, share, 1 << 30, rounds, None)
            assert "o:" in pieces
            pieces.clear()
            assert_same(refitted(on, share, memory, rounds, kept), alone)
            originals.append("o:" in pieces)
            pieces.clear()
        assert bool(list(scratch.rglob("*.npy"))) == (memory < 1 << 30)
    assert originals == [True, False, False]


def test_rows_that_the_original_picks_are_kept_too(scratch: Path) -> None:
    s = Sketch()
    h = s.op("Relu", s.conv(s.input("x", [1, 3, 6, 6]), 3, 32, 3))
    picked = s.op("NonZero", s.op("Greater", s.op("Reshape", s.conv(h, 32, 1), s.array([36])), s.array(0, np.float32)))
    rows = s.op("Reshape", s.op("Transpose", h, attrs={"perm": [0, 2, 3, 1]}), s.array([36, -1]))
    rows = s.op("Gather", rows, s.op("Squeeze", picked, s.array([0])))
    rows = s.op("Relu", s.op("MatMul", rows, s.weight(32, 48)))
    s.output(s.op("MatMul", rows, s.weight(48, 5)), [None, 5])
    on = bench(s.model(), correlated((24, 3, 6, 6), rank=2))
    with KeptTargets() as kept:
        for share in SHARES:
            alone = refitted(on, share, 1 << 30, 0, None)
            assert len(alone.layers) > 1
            assert_same(refitted(on, share, 0, 0, kept), alone)


def test_targets_that_take_too_much_are_computed_again(scratch: Path, pieces: list[str]) -> None:
    on = table("conv-norm")
    with KeptTargets(most=1000) as kept:
        for share in SHARES:
            pieces.clear()
            assert_same(refitted(on, share, 1 << 30, 0, kept), refitted(on, share, 1 << 30, 0, None))
            assert pieces.count("o:") % 2 == 0
            assert "o:" in pieces


def test_what_is_kept_stays_within_its_part_of_the_memory(scratch: Path) -> None:
    memory = 200_000
    with KeptTargets() as kept:
        refitted(table("conv-bias"), 0.5, memory, 0, kept)
        store = kept._store
        assert store is not None
        assert 0 < sum(array.nbytes for array in store._memory.values()) <= memory // 16
        assert list(scratch.rglob("*.npy"))


def test_kept_targets_leave_no_file_when_interrupted(scratch: Path) -> None:
    with pytest.raises(KeyboardInterrupt), KeptTargets() as kept:
        refitted(table("conv-bias"), 0.5, 0, 0, kept)
        assert list(scratch.rglob("*.npy"))
        raise KeyboardInterrupt


@pytest.mark.parametrize(("made", "cuts"), [(candidate.trial, 2), (candidate.attempt, 2)])
def test_a_candidate_is_cut_once_before_its_refit_and_once_after(
    made: object, cuts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = table("conv-norm")
    (pricing,) = price(on.work, OPTIONS, {"qr": on.rankings}, on.grams, Silent())
    counts = np.asarray([max(1, len(g) // 2) for g in on.coupling.groups])
    done: list[int] = []

    def counted(*arguments: object) -> onnx.ModelProto:
        done.append(len(arguments))
        return cut(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(candidate, "cut", counted)
    conditions = candidate.Conditions(on.work, evaluator_for(on.work, OPTIONS), OPTIONS)
    made(conditions, Allocation(pricing, counts), Silent())  # type: ignore[operator]
    # The last one has the new weights.
    assert done == [2] * (cuts - 1) + [3]


def test_a_search_runs_the_original_once_for_all_attempts_and_once_for_all_trials(
    scratch: Path, pieces: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on = table("conv-bias")
    made: list[int] = []
    usual = Refit.__init__

    def noted(self: Refit, *arguments: object, **named: object) -> None:
        made.append(pieces.count("o:"))
        usual(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Refit, "__init__", noted)
    feeds = {"x": np.concatenate([batch["x"] for batch in on.work.fit.batches(16)])}
    onnxprune.prune(on.coupling.graph.model, feeds, max_drop=0.9, samples=76, threads=1, round_to=1)
    # The first refit of each kind runs the original, and no other.
    rises = [later - sooner for sooner, later in zip([0, *made], made, strict=False)]
    assert len(rises) > 3
    assert 1 <= sum(rise > 0 for rise in rises) <= 2
