"""What people read about groups and locks."""

from __future__ import annotations

import re

import numpy as np
import pytest
from graphs import Sketch

import onnxprune
from onnxprune.coupling.locks import lock_text
from onnxprune.coupling.open import couple
from onnxprune.pipeline.calibrate import nothing_reason
from onnxprune.report.describe import choice_lines, group_rows, prunable_share


def classifier(last: str) -> Sketch:
    """Two convolutions, then ``last`` over the channels of the second."""
    sketch = Sketch()
    x = sketch.input("x", [1, 3, 8, 8])
    hidden = sketch.op("Relu", sketch.conv(x, 3, 8, 3, name="first"))
    y = sketch.op(last, sketch.conv(hidden, 8, 6, name="second"), name="last", attrs={"axis": 1})
    sketch.nodes[-1].output[0] = sketch.output("y", [1, 6, 8, 8]) if last == "Softmax" else y
    if last != "Softmax":
        sketch.output(y, [1, 1, 8, 8], 7)
    return sketch


@pytest.mark.parametrize("last", ["Softmax", "ArgMax"])
def test_a_lock_names_each_thing_once(last: str) -> None:
    coupling = couple(classifier(last).model(), {}, None)
    assert coupling.held
    for held in coupling.held:
        text = lock_text(coupling, held)
        names = re.findall(r"'([^']+)'", text)
        assert len(names) == len(set(names)) >= 1, text
        assert held.reason.value is None or held.reason.value in names
        assert held.reason.node is None or coupling.graph.nodes[held.reason.node].label in names


def test_rows_count_what_stays_and_share_what_macs_there_are() -> None:
    coupling = couple(classifier("Softmax").model(), {}, None)
    (group,) = coupling.groups
    keep = np.ones(coupling.unit_count, dtype=np.bool_)
    keep[group.units[:3]] = False
    free, *held = group_rows(coupling, keep, frozenset())
    assert (free.before, free.after, free.locked) == (8, 5, None)
    assert free.macs_share == pytest.approx(1.0)
    assert all(row.before == row.after and row.locked for row in held)
    (frozen, *_) = group_rows(coupling, keep | True, frozenset({group.id}))
    assert frozen.locked == "left out by --exclude or --only, or run by no sample"
    assert prunable_share(coupling) == pytest.approx(1.0)
    assert choice_lines(coupling) == ()


@pytest.mark.parametrize("read", [True, False])
def test_a_choice_is_told_where_something_is_cut_by_it(read: bool) -> None:
    sketch = Sketch()
    x = sketch.conv(sketch.input("x", [1, 3, 8, 8]), 3, 12, name="first")
    heads = sketch.op("Reshape", x, sketch.array([1, 3, 4, 64]), name="heads")
    if read:
        back = sketch.op("Reshape", heads, sketch.array([1, 12, 8, 8]))
        sketch.output(sketch.conv(back, 12, 2, name="last"), [1, 2, 8, 8])
    else:
        # Free at the first Reshape, held at the second: neither is cut.
        sketch.output(sketch.op("Reshape", heads, sketch.array([1, 768])), [1, 768])
    lines = choice_lines(couple(sketch.model(), {}, None))
    assert [line.partition(":")[0] for line in lines] == (["Reshape 'heads'"] if read else [])


def test_directions_of_a_recurrence_are_not_told_as_channels() -> None:
    sketch = Sketch()
    x = sketch.op("Transpose", sketch.input("x", [5, 12, 1]), attrs={"perm": [0, 2, 1]})
    weights = [sketch.weight(2, 18, 12), sketch.weight(2, 18, 6), sketch.weight(2, 36)]
    y = sketch.op("GRU", x, *weights, name="both", attrs={"hidden_size": 6, "direction": "bidirectional"})
    sketch.output(sketch.op("ReduceSum", y, sketch.array([1]), attrs={"keepdims": 0}), [5, 1, 6])
    coupling = couple(sketch.model(), {}, None)
    assert {(held.name, held.size) for held in coupling.held} == {("both", 12), ("both", 6)}


def test_where_only_a_normalization_holds_its_remedy_is_told() -> None:
    sketch = Sketch()
    x = sketch.op("MatMul", sketch.input("x", [2, 5]), sketch.weight(5, 6), name="in")
    hidden = sketch.op("LayerNormalization", x, sketch.weight(6), name="norm")
    sketch.output(sketch.op("MatMul", hidden, sketch.weight(6, 3), name="out"), [2, 3])
    told = "--approximate frees 6 more channels; LayerNormalization takes a statistic over them"
    assert nothing_reason(couple(sketch.model(), {}, None)).endswith(f"; {told}")
    assert onnxprune.inspect(sketch.model()).notes == (told,)
    assert not onnxprune.inspect(sketch.model(), rules="approximate").notes
    assert nothing_reason(couple(classifier("Softmax").model(), {}, None)).count("--approximate") == 0


@pytest.mark.parametrize("between", ["", "Softmax", "Sigmoid", "Reshape"])
def test_heads_behind_a_reshape_are_held_by_the_output(between: str) -> None:
    """Boxes of three anchors, as detectors lay them out: no operator on the way is the cause."""
    sketch = Sketch()
    x = sketch.conv(sketch.input("x", [1, 3, 8, 8]), 3, 12, 3, name="head")
    x = sketch.op("Transpose", x, attrs={"perm": [0, 2, 3, 1]})
    x = sketch.op("Reshape", x, sketch.array([1, 192, 4]), name="boxes")
    if between in ("Softmax", "Sigmoid"):
        x = sketch.op(between, x)
    shape = [1, 192, 4]
    if between == "Reshape":
        x, shape = sketch.op("Reshape", x, sketch.array([1, 768]), name="flat"), [1, 768]
    sketch.output(x, shape)
    told = [str(g.locked) for g in onnxprune.inspect(sketch.model()).groups]
    assert len(told) == 2 and sum(t.startswith(f"'{x}' is an output of the model, which Reshape") for t in told) == 1
