"""The benchmark's baselines are what they are called: laws of each, on the demo model."""

from __future__ import annotations

import math
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tools"))

from baselines import compensate, rank  # noqa: E402
from baselines.batch_statistics import channels_of_cut, reestimated, statistics  # noqa: E402
from baselines.peers import channels_of  # noqa: E402
from baselines.readers import normal_weight, readers  # noqa: E402
from baselines.sequential import exact_sequential  # noqa: E402
from baselines.workbench import Workbench, open_workbench  # noqa: E402
from bench_cell import Found  # noqa: E402
from bench_methods import LITERATURE, METHODS  # noqa: E402
from bench_table import Cell, read_cells, tables, write_cell  # noqa: E402

from onnxprune.calibration.preprocess import Preprocess  # noqa: E402

CRITERIA = (rank.magnitude, rank.wanda, rank.contribution_qr, rank.activation_qr, rank.block_obs)
COMPENSATIONS = (
    compensate.nothing,
    compensate.interpolative,
    compensate.gram_ridge,
    compensate.exact,
    exact_sequential,
)
#: Rows that exchange a part of the package where it is looked up.
EXCHANGED = ("onnxprune-refit-per-layer", "onnxprune-refit-sequential", "onnxprune-uniform", "onnxprune-statistics")


@cache
def demo() -> Workbench:
    models = ROOT / "models"
    return open_workbench(
        models / "demo.onnx", models / "calib.npz", models / "test.npz", Preprocess.named("unit"), 40, 0
    )


@pytest.mark.parametrize("criterion", CRITERIA, ids=lambda f: f.__name__)
def test_an_order_holds_every_unit_once_and_its_error_falls(criterion) -> None:
    for group, found in zip(demo().work.coupling.groups, criterion(demo()), strict=True):
        assert sorted(found.order.tolist()) == list(range(len(group)))
        assert found.error[0] == pytest.approx(1) and found.error[-1] == 0
        assert (np.diff(found.error) <= 1e-12).all()


def test_prices_of_elimination_add_up_to_the_error_of_the_exact_solution() -> None:
    """Block OBS is greedy, but each of its steps is exact: its prices sum to min ‖XW − X_S·W'‖² + damp·‖W − W'‖²."""
    bench = demo()
    coupling = bench.work.coupling
    checked = 0
    for group, found in zip(coupling.groups, rank.block_obs(bench), strict=True):
        reading = readers(coupling, group, bench.work.layers, bench.grams)
        if len(reading) != 1:
            continue
        weight = normal_weight(coupling, reading[0].layer)
        groups, outs, _, taps = weight.shape
        flat = weight.reshape(groups, outs, -1).transpose(0, 2, 1)

        def error(
            count: int, order=found.order, reader=reading[0], flat=flat, taps=taps
        ) -> float:  # B008: bound per group
            gone = reader.features(order[count:], taps).ravel()
            total = 0.0
            for moments, own in zip(reader.moments, flat, strict=True):
                damped = moments + rank.DAMP * np.diagonal(moments).mean() * np.eye(len(moments))
                left = np.setdiff1d(np.arange(len(moments)), gone)
                solved = np.zeros_like(own)
                solved[left] = np.linalg.solve(damped[np.ix_(left, left)], damped[left] @ own)
                total += float(np.einsum("no,nm,mo->", own - solved, damped, own - solved))
            return total

        everything = error(0)
        for count in (1, len(group) // 2, len(group) - 1):
            assert found.error[count] == pytest.approx(error(count) / everything, rel=1e-5, abs=1e-9)
            checked += 1
    assert checked >= 9


@pytest.mark.parametrize("compensation", COMPENSATIONS, ids=lambda f: f.__name__)
def test_nothing_cut_is_nothing_changed(compensation) -> None:
    bench = demo()
    keep = np.ones(bench.work.coupling.unit_count, dtype=np.bool_)
    assert bench.output_loss(bench.cut(keep, compensation(bench, keep))) < 1e-9


@pytest.mark.parametrize("compensation", COMPENSATIONS[1:], ids=lambda f: f.__name__)
def test_compensation_brings_the_outputs_nearer_than_the_plain_slice(compensation) -> None:
    bench = demo()
    keep = bench.uniform(rank.activation_qr(bench), 0.6, bench.streams)
    assert keep is not None
    weights = compensation(bench, keep)
    assert weights
    assert bench.output_loss(bench.cut(keep, weights)) < bench.output_loss(bench.cut(keep, {}))


@pytest.mark.parametrize("kept", (0.8, 0.5, 0.3))
@pytest.mark.parametrize("still", (True, False), ids=("without streams", "all groups"))
def test_uniform_budgets_come_within_one_percent_or_are_refused(kept: float, still: bool) -> None:
    bench = demo()
    keep = bench.uniform(rank.magnitude(bench), kept, bench.streams if still else frozenset())
    if keep is None:
        assert still and kept < 0.5
    else:
        assert kept - 0.01 <= bench.kept(bench.cut(keep, {})) <= kept + 1e-9


@pytest.mark.parametrize("name", [*LITERATURE, *EXCHANGED])
def test_a_row_gives_a_model_of_the_asked_size(name: str) -> None:
    bench = demo()
    for kept, found in METHODS[name](bench, (0.6,), ""):
        assert isinstance(found, Found), found
        assert abs(found.macs - kept) <= 0.01
        assert bench.output_loss(found.model) > 0


def test_streams_are_the_groups_with_several_writers() -> None:
    bench = demo()
    graph = bench.work.coupling.graph
    adds = {v for node in graph.nodes if node.op == "Add" for v in node.inputs}
    for group in bench.work.coupling.groups:
        summed = {key for key, _ in group.axes if key in adds}
        assert (group.id in bench.streams) == bool(summed)


def test_reestimated_statistics_are_those_of_the_original() -> None:
    bench = demo()
    keep = bench.uniform(rank.magnitude(bench), 0.5, frozenset())
    assert keep is not None
    wanted = statistics(bench, bench.work.loaded.proto)
    channels = channels_of_cut(bench, keep)
    found = statistics(bench, reestimated(bench, bench.cut(keep, {}), channels, wanted))
    assert found.keys() == wanted.keys()
    for value, (mean, spread) in found.items():
        alive = spread > 1e-3
        np.testing.assert_allclose(mean[alive], wanted[value][0][channels[value]][alive], atol=2e-2)
        np.testing.assert_allclose(spread[alive], wanted[value][1][channels[value]][alive], rtol=2e-2, atol=2e-3)


def test_channels_that_another_tool_kept_are_recognised() -> None:
    bench = demo()
    keep = bench.uniform(rank.magnitude(bench), 0.5, frozenset())
    assert keep is not None
    found = channels_of(bench.work.loaded.proto, bench.cut(keep, {}))
    cut = channels_of_cut(bench, keep)
    assert len(found) > 10
    for value, places in found.items():
        np.testing.assert_array_equal(places, cut[value])


def test_tables_name_who_leads_and_what_is_missing(tmp_path: Path) -> None:
    def cell(method: str, kept: float, top1: float, note: str = "") -> Cell:
        return Cell("m", method, kept, 8, 0, kept, top1, note, 1.0)

    cells = [
        cell("original", 1.0, 0.9), cell("onnxprune", 0.5, 0.8), cell("onnxprune-uniform", 0.5, 0.85),
        cell("a", 0.5, 0.82), cell("b", 0.5, math.nan, "unreachable"),
    ]  # fmt: skip
    for one in cells:
        write_cell(tmp_path, one)
    text = tables(read_cells(tmp_path, 8, 0), ["onnxprune", "onnxprune-uniform", "a", "b"], "onnxprune")
    assert "at 0.5, a leads onnxprune by 2.00 points" in text
    assert "none at 0.5 of b: unreachable" in text
    assert "uniform leads" not in text and "| a | **82.00%** |" in text
