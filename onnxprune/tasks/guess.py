"""Guess the task of a model from the shapes and values of its outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from onnxprune.errors import DataError
from onnxprune.tasks.answers import Answers
from onnxprune.tasks.classify import Classify, classify
from onnxprune.tasks.ctc import ctc
from onnxprune.tasks.detect.reader import Detect, detect
from onnxprune.tasks.embed import Embed, embed
from onnxprune.tasks.maps import likely_channel_axis
from onnxprune.tasks.pose import heat_maps, pose
from onnxprune.tasks.regress import regress
from onnxprune.tasks.segment import Segment, segment
from onnxprune.tasks.task import Guess, TaskKind

#: Minimum share of samples with a number in the outer tenths of 0 … 1.  Such numbers are decisions, not measurements.
DECIDED = 0.75
NOTHING: Mapping[str, object] = {}
Array = np.ndarray


def guess(answers: Answers, layout: Mapping[str, object] = NOTHING) -> Guess:
    """Guess the task from the outputs.

    ``layout`` holds what the user states about a detector's outputs, see ``parse_layout``.  If no task is certain, returns
    the most likely one with ``sure`` False; the caller then uses a measure that needs no task.

    Cost: reads the outputs a few times.
    """
    if layout:
        return stated("detect", answers, layout)
    unsure: list[Guess] = []
    for look in (_rows, heat_maps, _detect_or_pose, ctc, segment, _probability):
        candidate = look(answers)
        if candidate.reader is not None and candidate.sure:
            return candidate
        if candidate.reader is not None:
            unsure.append(candidate)
    return unsure[0] if unsure else _number(answers)


def stated(kind: TaskKind, answers: Answers, layout: Mapping[str, object] = NOTHING) -> Guess:
    """A reader for the task that the user states.

    Raises:
        DataError: if the outputs do not fit the task.
    """
    looks: Mapping[TaskKind, Callable[[Answers], Guess]] = {
        "classify": _classify_stated,
        "detect": lambda a: detect(a, layout),
        "segment": _segment_stated,
        "pose": lambda a: pose(a, layout),
        "embed": _embed_stated,
        "ctc": ctc,
        "regress": regress,
    }
    fitted = looks[kind](answers)
    if fitted.reader is None:
        shapes = ", ".join(
            f"'{name}' {'×'.join(map(str, array.shape)) or 'scalar'}"
            for name, array in zip(answers.names, answers.batches[0], strict=True)
        )
        raise DataError(f"the outputs cannot be read as --task {kind}: {fitted.because} (outputs: {shapes})")
    return Guess(fitted.reader, True, fitted.because)


def _rows(answers: Answers) -> Guess:
    unit = embed(answers)
    return unit if unit.reader is not None else classify(answers)


def _detect_or_pose(answers: Answers) -> Guess:
    guess = detect(answers, NOTHING)
    return pose(answers, NOTHING) if isinstance(guess.reader, Detect) and guess.reader.layout.keypoints else guess


def _probability(answers: Answers) -> Guess:
    """One number in 0 … 1 per sample.  Other outputs may have no sample axis, such as a state."""
    for index in range(len(answers.names)):
        row = answers.row(index)
        if row is None or math.prod(row) != 1 or answers.batches[0][index].dtype.kind != "f":
            continue
        values = np.concatenate(answers.parts(index))
        if values.min() >= 0 and values.max() <= 1 and np.isfinite(values).all():
            both = bool((values >= 0.5).any() and (values < 0.5).any())
            decided = float(np.mean((values < 0.1) | (values > 0.9))) >= DECIDED
            because = "one number from 0 to 1 per sample; 0.5 or more counts as yes"
            return Guess(Classify((index,)), both and decided, because)
    return Guess(None, False, "no probability")


def _number(answers: Answers) -> Guess:
    guess = regress(answers)
    if guess.reader is None or answers.tokens or any(_shares(array) for array in answers.batches[0]):
        return Guess(guess.reader, False, guess.because)
    return guess


def _shares(array: Array) -> bool:
    """Whether an output holds probabilities at each of several places: then it is a choice, not plain numbers."""
    if array.ndim != 3 or array.dtype.kind != "f" or array.size == 0 or not 0 <= array.min() <= array.max() <= 1:
        return False
    return array.shape[-1] > 1 and bool(np.allclose(array.sum(axis=-1, dtype=np.float64), 1.0, atol=1e-2))


def _classify_stated(answers: Answers) -> Guess:
    guessed = classify(answers)
    if guessed.reader is not None:
        return guessed
    rows = []
    for index in range(len(answers.names)):
        values = answers.stacked(index)
        if values is not None and values.size == math.prod(values.shape[:2]):
            rows.append(index)
    return Guess(Classify(tuple(rows[:1])), True, "scores per sample") if rows else guessed


def _embed_stated(answers: Answers) -> Guess:
    for index in range(len(answers.names)):
        values = answers.stacked(index)
        if values is not None and values.dtype.kind == "f" and values[0].size > 1:
            return Guess(Embed(index), True, "numbers per sample")
    return embed(answers)


def _segment_stated(answers: Answers) -> Guess:
    guessed = segment(answers)
    if guessed.reader is not None:
        return guessed
    for index, one in enumerate(answers.batches[0]):
        if one.ndim == 4 and one.dtype.kind == "f":
            axis = likely_channel_axis(one.shape, answers.size)
            if one.shape[axis] > 1:
                return Guess(Segment((index,), "arg-max", axis), True, "scores per pixel")
            return Guess(Segment((index,), "masks", logits=True), True, "a logit per pixel")
    return guessed
