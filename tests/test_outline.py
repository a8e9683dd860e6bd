"""The picture of the graph: what it draws, and that its lanes never run through one another."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import Sketch, random_keep

from onnxprune.coupling.open import couple
from onnxprune.report.describe import LEFT_OUT
from onnxprune.report.lanes import LINE, MAX_WIDTH, lanes
from onnxprune.report.outline import layer_rows
from onnxprune.result import LayerRow


def residual(blocks: int) -> onnx.ModelProto:
    """A stem, ``blocks`` residual blocks with activations between, a head."""
    sketch = Sketch()
    x = sketch.op("Relu", sketch.conv(sketch.input("x", [1, 3, 4, 4]), 3, 8, name="stem"))
    for block in range(blocks):
        inner = sketch.op("Relu", sketch.conv(x, 8, 6, name=f"b{block}/first"))
        x = sketch.op(
            "Relu", sketch.op("Add", x, sketch.conv(inner, 6, 8, name=f"b{block}/second"), name=f"b{block}/Add")
        )
    sketch.output(sketch.conv(x, 8, 5, name="head"), [1, 5, 4, 4])
    return sketch.model()


def random_rows(seed: int, count: int) -> tuple[LayerRow, ...]:
    """Any graph: each row reads up to three earlier ones."""
    generator = np.random.default_rng(seed)
    rows = []
    for index in range(count):
        reads = min(index, int(generator.integers(0, 4)))
        back = generator.integers(1, min(index, 30) + 1, reads) if index else []
        inputs = tuple(sorted({index - int(b) for b in back}))
        rows.append(LayerRow(f"/layer{index}/Conv", "Conv", inputs, 8, 4, 0.1, 0.05))
    return tuple(rows)


def test_layers_and_merges_are_drawn_with_what_feeds_them() -> None:
    coupling = couple(residual(2), {}, None)
    rows = layer_rows(coupling, np.ones(coupling.unit_count, dtype=np.bool_), frozenset())
    names = [row.name for row in rows]
    assert names == ["stem", "b0/first", "b0/second", "b0/Add", "b1/first", "b1/second", "b1/Add", "head"]
    assert [row.inputs for row in rows] == [(), (0,), (1,), (0, 2), (3,), (4,), (3, 5), (6,)]
    assert sum(row.macs_before for row in rows) == pytest.approx(1.0)
    assert [row.before for row in rows] == [8, 6, 8, 8, 6, 8, 8, 5]
    assert rows[-1].locked is not None
    assert "output of the model" in rows[-1].locked
    assert not any(row.locked for row in rows[:-1])


def test_cut_and_left_out_layers_say_so() -> None:
    coupling = couple(residual(1), {}, None)
    keep = random_keep(coupling, 3)
    rows = {row.name: row for row in layer_rows(coupling, keep, frozenset({0}))}
    kept = {group.name: int(keep[group.units].sum()) for group in coupling.groups}
    assert rows["b0/first"].after == kept["b0/first"]
    assert rows["b0/second"].after == rows["b0/Add"].after == kept["stem"]
    share = kept["b0/first"] * kept["stem"] / (6 * 8)
    assert rows["b0/second"].macs_after == pytest.approx(rows["b0/second"].macs_before * share)
    assert LEFT_OUT in {rows["stem"].locked, rows["b0/first"].locked}


@pytest.mark.parametrize("seed", range(20))
def test_a_lane_belongs_to_one_row_until_its_last_reader(seed: int) -> None:
    rows = random_rows(seed, 60)
    drawn = lanes(rows)
    last = {source: index for index, row in enumerate(rows) for source in row.inputs}
    for first, spot in enumerate(drawn.spots):
        for other in range(first + 1, last.get(first, first)):
            assert drawn.spots[other].x != spot.x, (first, other)
    assert len(drawn.spots) == len(rows)
    assert all(0 < spot.x < drawn.width for spot in drawn.spots)
    assert drawn.height == LINE * len(rows)
    assert drawn.edges.count("M") == sum(len(row.inputs) for row in rows)


def test_a_deep_graph_stays_narrow_and_small() -> None:
    rows = random_rows(0, 700)
    drawn = lanes(rows)
    assert drawn.width <= 2 * MAX_WIDTH
    assert len(drawn.edges) < 60 * sum(len(row.inputs) for row in rows)
