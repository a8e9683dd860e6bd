"""The output loss: what channels are, and which share of what the original says is lost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from graphs import Sketch

from onnxprune import metrics
from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.open import couple
from onnxprune.measure.fields import fields_of
from onnxprune.measure.kinds import NUMBERS, ROWS, UNIT, kinds_of
from onnxprune.measure.loss import OutputLoss, output_loss

Array = np.ndarray
SAMPLES, BOX, CLASSES, SIDE = 12, 4, 6, 8
CELLS = SIDE * SIDE


def heads(joined: bool, last: bool, scale: float = 640.0) -> onnx.ModelProto:
    """Boxes in pixels and class probabilities, in one output or two; channels on axis 1 or ``last``."""
    s = Sketch()
    x = s.input("x", [1, 3, SIDE, SIDE])
    hidden = s.op("Relu", s.conv(x, 3, 12, 3))
    boxes = s.op("Mul", s.conv(s.op("Relu", s.conv(hidden, 12, 8)), 8, BOX, name="boxes"), s.array(scale, np.float32))
    scores = s.op("Sigmoid", s.conv(s.op("Relu", s.conv(hidden, 12, 8)), 8, CLASSES, name="classes"))
    made = [(s.op("Reshape", v, s.array([1, n, CELLS])), n) for v, n in ((boxes, BOX), (scores, CLASSES))]
    if joined:
        made = [(s.op("Concat", *(v for v, _ in made), attrs={"axis": 1}), BOX + CLASSES)]
    for k, (value, size) in enumerate(made):
        end = s.op("Transpose", value, attrs={"perm": [0, 2, 1]}) if last else value
        s.nodes.append(onnx.helper.make_node("Identity", [end], [f"out{k}"]))
        s.output(f"out{k}", [1, CELLS, size] if last else [1, size, CELLS])
    return s.model()


def coupled(model: onnx.ModelProto) -> Coupling:
    return couple(model, {}, None)


@dataclass(frozen=True)
class Scene:
    """(SAMPLES, channels, CELLS): an object in a few cells of every sample, background elsewhere."""

    boxes: Array
    scores: Array
    there: Array  # (SAMPLES, CELLS)


def scene(scale: float = 640.0) -> Scene:
    generator = np.random.default_rng(0)
    there = np.zeros((SAMPLES, CELLS), dtype=np.bool_)
    scores = generator.uniform(0, 2e-3, (SAMPLES, CLASSES, CELLS))
    for sample in range(SAMPLES):
        cell, kind = generator.integers(CELLS), generator.integers(CLASSES)
        there[sample, cell] = True
        scores[sample, kind, cell] = 0.8
    boxes = scale * generator.uniform(0.1, 0.9, (SAMPLES, BOX, CELLS))
    return Scene(boxes.astype(np.float32), scores.astype(np.float32), there)


def outputs(boxes: Array, scores: Array, joined: bool, last: bool) -> list[Array]:
    made = [np.concatenate([boxes, scores], axis=1)] if joined else [boxes, scores]
    return [array.transpose(0, 2, 1) if last else array for array in made]


LAYOUTS = [(joined, last) for joined in (True, False) for last in (True, False)]


def measure(joined: bool, last: bool, scale: float = 640.0) -> tuple[OutputLoss, Scene]:
    on, seen = coupled(heads(joined, last)), scene(scale)
    return output_loss(on, on.graph.outputs, outputs(seen.boxes, seen.scores, joined, last)), seen


@pytest.mark.parametrize(("joined", "last"), LAYOUTS)
def test_channels_of_a_joined_output_are_told_apart(joined: bool, last: bool) -> None:
    on = coupled(heads(joined, last))
    fields = fields_of(on, on.graph.outputs)
    assert [field.channels.tolist() for field in fields] == [
        list(range(BOX)),
        list(range(BOX, BOX + CLASSES)) if joined else list(range(CLASSES)),
    ]
    assert {field.axis for field in fields} == {2 if last else 1}
    names = [{on.graph.nodes[index].label for index in field.makers} for field in fields]
    assert names == [{"boxes"}, {"classes"}]
    assert [field.squashed for field in fields] == [False, True]


@pytest.mark.parametrize(("joined", "last"), LAYOUTS)
def test_nothing_moved_is_nothing_lost_and_the_mean_is_all(joined: bool, last: bool) -> None:
    loss, seen = measure(joined, last)
    assert loss.of(outputs(seen.boxes, seen.scores, joined, last)) == 0.0
    mean = np.broadcast_to(seen.scores.mean(axis=(0, 2), keepdims=True), seen.scores.shape)
    usual = np.broadcast_to(seen.boxes.mean(axis=0, keepdims=True), seen.boxes.shape)
    blind = loss.of(outputs(usual, mean, joined, last))
    # A little of each channel's size counts as spread, too.
    assert 0.95 < blind <= 1.0


@pytest.mark.parametrize(("joined", "last"), LAYOUTS)
def test_lost_objects_are_seen_beside_boxes_in_pixels(joined: bool, last: bool) -> None:
    loss, seen = measure(joined, last)
    silent = outputs(seen.boxes, np.minimum(seen.scores, 3e-3), joined, last)
    noisy = outputs(seen.boxes, np.clip(seen.scores * 1.5, 0, 0.82), joined, last)
    assert loss.of(silent) > 0.4
    # By the old measure of one joined output there was nothing to see.
    if joined:
        assert metrics.plain_loss(loss.reference, silent) < 1e-4
    assert loss.of(noisy) < 0.02


@pytest.mark.parametrize(("joined", "last"), LAYOUTS)
def test_false_alarms_are_lost_too(joined: bool, last: bool) -> None:
    loss, seen = measure(joined, last)
    alarms = seen.scores.copy()
    alarms[:, 0, :2] = 0.8
    assert loss.of(outputs(seen.boxes, alarms, joined, last)) > 0.4


@pytest.mark.parametrize(("joined", "last"), LAYOUTS)
def test_a_coordinate_counts_most_where_something_is(joined: bool, last: bool) -> None:
    loss, seen = measure(joined, last)
    found = []
    for place in (seen.there, np.roll(seen.there, 1, axis=1)):
        moved = seen.boxes + 64 * place[:, None].astype(np.float32)
        found.append(loss.of(outputs(moved, seen.scores, joined, last)))
    assert found[0] > 10 * found[1] > 0


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_units_do_not_matter(scale: float) -> None:
    found = []
    for factor in (1.0, scale):
        loss, seen = measure(True, False, 100 * factor)
        moved = seen.boxes + np.float32(5 * factor)
        found.append(loss.of(outputs(moved, seen.scores, True, False)))
    assert found[1] == pytest.approx(found[0], rel=1e-3)


def test_each_channel_has_its_own_scale() -> None:
    on, seen = coupled(heads(False, False)), scene()
    units = np.float32([1e-2, 1, 1e2, 1e2])[None, :, None]
    even = np.float32([1, 1, 1, 1])[None, :, None]
    found = []
    for unit in (even, units):
        loss = output_loss(on, on.graph.outputs, [seen.boxes * unit, seen.scores])
        lost = [seen.boxes.copy() for _ in range(BOX)]
        for k, boxes in enumerate(lost):
            boxes[:, k] *= 1.1
        found.append([loss.of([boxes * unit, seen.scores]) for boxes in lost])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3)


def levels(squashed: bool, same: bool) -> onnx.ModelProto:
    s = Sketch()
    x = s.input("x", [1, 3, SIDE, SIDE])
    for k, stride in enumerate((1, 1 if same else 2)):
        wide = x if stride == 1 else s.op("MaxPool", x, attrs={"kernel_shape": [2, 2], "strides": [2, 2]})
        made = s.conv(s.op("Relu", s.conv(wide, 3, 8)), 8, 5)
        s.nodes.append(onnx.helper.make_node("Sigmoid" if squashed else "Identity", [made], [f"level{k}"]))
        s.output(f"level{k}", [1, 5, SIDE // stride, SIDE // stride])
    return s.model()


@pytest.mark.parametrize("squashed", [True, False])
@pytest.mark.parametrize("same", [True, False])
def test_levels_of_a_head_are_one_kind_and_heads_of_one_size_are_two(squashed: bool, same: bool) -> None:
    on = coupled(levels(squashed, same))
    generator = np.random.default_rng(0)
    sides = (SIDE, SIDE if same else SIDE // 2)
    made = [(generator.uniform(0, 1, (6, 5, side, side)) ** 12).astype(np.float32) for side in sides]
    kinds = kinds_of(fields_of(on, on.graph.outputs), made)
    assert [kind.form for kind in kinds] == [UNIT if squashed else NUMBERS] * (2 if same else 1)


def test_forms_follow_from_the_graph_and_from_values() -> None:
    on = coupled(levels(True, True))
    fields = fields_of(on, on.graph.outputs)
    generator = np.random.default_rng(0)
    spread = generator.uniform(0, 1, (6, 5, SIDE, SIDE)).astype(np.float32)
    rows = (spread**8) / (spread**8).sum(axis=1, keepdims=True)
    # Evenly spread numbers behind a sigmoid are places or shades; rows that sum to one are distributions.
    assert [kind.form for kind in kinds_of(fields, [spread, rows])] == [NUMBERS, ROWS]


def test_plain_class_scores_keep_their_own_measure() -> None:
    s = Sketch()
    x = s.input("x", [1, 8])
    hidden = s.op("Relu", s.op("Gemm", x, s.weight(8, 16), s.weight(16)))
    s.nodes.append(onnx.helper.make_node("Gemm", [hidden, s.weight(16, 10), s.weight(10)], ["scores"]))
    s.output("scores", [1, 10])
    on = coupled(s.model())
    generator = np.random.default_rng(0)
    made, moved = (generator.standard_normal((SAMPLES, 10)).astype(np.float32) for _ in range(2))
    assert output_loss(on, on.graph.outputs, [made]).of([moved]) == metrics.plain_loss([made], [moved])


def test_rows_that_differ_in_number_are_compared_as_they_stand() -> None:
    loss, seen = measure(False, False)
    assert loss.of([seen.boxes[:, :, :3], seen.scores]) == metrics.plain_loss(
        loss.reference, [seen.boxes[:, :, :3], seen.scores]
    )


def test_no_number_stays_no_number_and_masked_places_have_no_distance() -> None:
    loss, seen = measure(False, False)
    broken = seen.scores.copy()
    broken[0, 0, 0] = np.nan
    assert np.isnan(loss.of([seen.boxes, broken]))
    masked = seen.boxes.copy()
    masked[:, 0, 0] = -np.inf
    on = coupled(heads(False, False))
    assert output_loss(on, on.graph.outputs, [masked, seen.scores]).of([masked, seen.scores]) == 0.0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("count", [1, 2, SAMPLES])
def test_any_float_and_any_number_of_samples(dtype: type, count: int) -> None:
    on, seen = coupled(heads(False, False)), scene()
    made = [seen.boxes[:count].astype(dtype), seen.scores[:count].astype(dtype)]
    loss = output_loss(on, on.graph.outputs, made)
    assert loss.of(made) == 0.0
    assert 0 < loss.of([(made[0] * dtype(1.1)).astype(dtype), made[1]]) < 1
