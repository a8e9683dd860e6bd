"""The drop is a task's where that is sure or stated, and says so; else it is the general one, and says that."""

from __future__ import annotations

import numpy as np
import pytest
from test_tasks import N, answers, areas, characters, mask, rng, scores, softmax, unit

from onnxprune import metrics
from onnxprune.errors import DataError, OptionError
from onnxprune.measure.loss import OutputLoss
from onnxprune.options import AUTO
from onnxprune.tasks.answers import Answers
from onnxprune.tasks.yardstick import Yardstick, outputs, yardstick

Array = np.ndarray


def judged(original: Answers, task: str, layout: str, rows_are_answers: bool) -> Yardstick:
    """Of a model without a graph: its loss is the squared relative error."""
    return yardstick(original, task, layout, rows_are_answers, OutputLoss(outputs(original), ()))


SURE = [
    (scores(10), "classify", 0.01),
    (unit(scores(64)), "embed", 0.02),
    (characters(), "ctc", 0.01),
    (areas(5), "segment", 0.05),
    (mask(), "segment", 0.05),
    (20 + scores(1), "regress", 0.05),
]


@pytest.mark.parametrize(("output", "kind", "allowed"), SURE, ids=[s[1] for s in SURE])
def test_a_sure_task_is_taken_and_told(output: Array, kind: str, allowed: float) -> None:
    found = judged(answers(output), AUTO, "", True)
    assert found.reader is not None and found.compare is not None
    assert (found.reader.kind, found.allowed) == (kind, allowed)
    assert found.note is not None
    assert found.note.startswith(f"task {kind}: ") and "on the first held-out sample the model answers: " in found.note
    drop = found.drop(answers(output), 20)
    assert (drop.metric, drop.samples) == (found.measure, N)
    assert drop.value == pytest.approx(0, abs=1e-12) and drop.low is not None and drop.high is not None
    assert found.drop(answers(output)).low is None
    np.testing.assert_array_equal(found.reference[0], output)


@pytest.mark.parametrize(("output", "kind"), [(scores(40), None), (unit(scores(40)), None), (mask(), "segment")])
def test_rows_that_grow_with_what_is_fed_are_no_answers_but_masks_may(output: Array, kind: str | None) -> None:
    """Waveforms and restored pictures are as long as their input; masks are so, too."""
    found = judged(answers(output), AUTO, "", False)
    assert (None if found.reader is None else found.reader.kind) == kind
    if kind is None:
        assert (found.measure, found.allowed, found.note) == (metrics.ERROR, 0.05, None)
        drop = found.drop(answers(2 * output))
        assert (drop.metric, drop.value) == (metrics.ERROR, pytest.approx(1))


def test_where_no_task_is_sure_the_general_drop_is_told_with_what_it_may_be() -> None:
    found = judged(answers(scores(512, 1.0)), AUTO, "", True)
    assert found.compare is None and found.measure == metrics.ERROR
    assert found.note is not None
    assert "--task classify" in found.note and "not certain" in found.note and "unless --task sets one" in found.note
    assert judged(answers(scores(512, 1.0)), "embed", "", True).measure == "cosine distance"


def test_notes_that_sound_together_are_no_text() -> None:
    """Shares that do not sum to one, silent at most times."""
    notes = np.where(rng().uniform(size=(N, 30, 40)) < 0.05, 0.7, 0.12) * rng().uniform(0.9, 1, (N, 30, 40))
    notes[:, :15, 0] = 0.2
    found = judged(answers(notes, size=None), AUTO, "", True)
    assert found.measure == metrics.ERROR
    assert found.note is not None and "--task segment" in found.note
    assert judged(answers(notes, size=None), "segment", "", True).measure == "mean IoU lost"


def test_an_original_that_says_nothing_is_told_or_where_the_task_is_stated_refused() -> None:
    empty = answers(mask() * 0.01)
    found = judged(empty, AUTO, "", True)
    assert found.compare is None
    assert found.note is not None and "masks are empty on all 24 held-out samples" in found.note
    with pytest.raises(DataError, match="masks are empty"):
        judged(empty, "segment", "", True)


def test_labels_stay_values_where_no_task_reads_them() -> None:
    found = judged(answers(rng().integers(0, 9, (N, 7)), softmax(scores(3))), AUTO, "", True)
    assert found.compare is None and found.measure == metrics.ERROR
    ordinals = judged(answers(rng().integers(0, 9, (N, 7))), AUTO, "", True)
    assert (ordinals.measure, ordinals.allowed) == (metrics.VALUES, 0.01)
    assert ordinals.drop(answers(np.full((N, 7), 20))).value == 1


def test_a_layout_states_a_detector() -> None:
    with pytest.raises(DataError, match="cannot be read as --task detect"):
        judged(answers(scores(10)), AUTO, "xywh", True)
    with pytest.raises(OptionError, match="unknown word 'boxes'"):
        judged(answers(scores(10)), AUTO, "boxes", True)
