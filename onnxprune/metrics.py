"""The distance between two models' outputs, without labels; and the accuracy, with labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.errors import DataError
from onnxprune.result import Drop

Array = np.ndarray
CHANGED = "top-1 changed"
RELATIVE = "relative L2 error"
#: The root of the output loss, see onnxprune.measure.loss: about the relative error of the outputs.
ERROR = "output error"
#: For outputs that are not floating-point numbers: masks, labels, positions of boxes.
VALUES = "values changed"
#: For the user's own metric.
OWN = "own metric"
#: Minimum samples to judge an output, and the relative spread over samples below which it counts as constant.
FEW, FLAT = 8, 1e-4


def is_scores(outputs: Sequence[Array]) -> bool:
    """Whether these are class scores: one floating-point output with a row of two or more numbers per sample."""
    if len(outputs) != 1 or outputs[0].ndim != 2 or outputs[0].dtype.kind != "f":
        return False
    return len(outputs[0]) > 0 and outputs[0].shape[1] > 1


def is_probabilities(scores: Array) -> bool:
    """Whether no number is negative and every row sums to one."""
    return bool(scores.min() >= 0 and np.allclose(scores.sum(axis=1, dtype=np.float64), 1.0, atol=1e-3))


def _centred(scores: Array) -> Array:
    # Exclude masked classes, which are at -inf, from the mean.
    finite = np.isfinite(scores)
    known = np.where(finite, scores, 0)
    mean = known.sum(axis=1, keepdims=True) / np.maximum(finite.sum(axis=1, keepdims=True), 1)
    return np.asarray(np.where(finite, known - mean, 0).astype(scores.dtype))


def log_probabilities(scores: Array) -> Array:
    """Log-softmax of ``scores``, or their logarithm if they are already probabilities.  Float64."""
    wide = scores.astype(np.float64)
    if is_probabilities(wide):
        return np.asarray(np.log(np.maximum(wide, 1e-12)))
    shifted = wide - wide.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def relative_error(original: Sequence[Array], pruned: Sequence[Array]) -> float:
    """Mean over floating-point outputs of ‖original − pruned‖ / ‖original‖."""
    errors = [_distance(a, b) for a, b in zip(original, pruned, strict=True) if a.dtype.kind == "f" and a.size]
    return float(np.mean(errors)) if errors else 0.0


def _distance(a: Array, b: Array) -> float:
    """Relative L2 error of ``b``.  If the sizes differ (missing boxes), the shorter output is padded with zeros."""
    left, right = (array.ravel().astype(np.float64) for array in (a, b))
    if a.shape != b.shape:
        size = max(left.size, right.size)
        left, right = (np.pad(flat, (0, size - flat.size)) for flat in (left, right))
    # Ignore positions at which the original is not finite: attention masks are infinite on purpose.
    finite = np.isfinite(left)
    left, right = np.where(finite, left, 0.0), np.where(finite, right, 0.0)
    return float(np.linalg.norm(left - right)) / max(float(np.linalg.norm(left)), 1e-12)


def is_discrete(outputs: Sequence[Array]) -> bool:
    """Whether no output is floating-point, but some output is comparable: integers, booleans or text."""
    return not any(a.dtype.kind == "f" for a in outputs) and any(_comparable(a) for a in outputs)


def _comparable(array: Array) -> bool:
    return array.dtype.kind in "iubUS" or (array.dtype == object and all(isinstance(v, str) for v in array.flat))


def changed_values(original: Sequence[Array], pruned: Sequence[Array]) -> float:
    """The share of values that differ, mean over outputs that are not floating-point."""
    shares = [_changed(a, b) for a, b in zip(original, pruned, strict=True) if _comparable(a) and a.size]
    return float(np.mean(shares)) if shares else 0.0


def _changed(a: Array, b: Array) -> float:
    if a.shape == b.shape:
        return float(np.mean(a != b))
    shared = min(a.size, b.size)
    same = np.count_nonzero(a.ravel()[:shared] == b.ravel()[:shared])
    return 1.0 - same / max(a.size, b.size)


def metric_of(outputs: Sequence[Array]) -> str:
    """The name of the drop for such outputs, judged by the outputs alone."""
    if is_scores(outputs):
        return CHANGED
    return VALUES if is_discrete(outputs) else RELATIVE


def drop(metric: str, original: Sequence[Array], pruned: Sequence[Array], samples: int) -> Drop:
    """The share of samples whose top-1 changes (CHANGED), the share of values that change (VALUES), or the relative L2
    error.  The latter also replaces CHANGED if there is not one top-1 per sample."""
    if metric == CHANGED and original[0].shape == pruned[0].shape and len(original[0]) == samples:
        changed = original[0].argmax(axis=1) != pruned[0].argmax(axis=1)
        return Drop(CHANGED, float(changed.mean()), samples)
    if metric == VALUES:
        return Drop(VALUES, changed_values(original, pruned), samples)
    return Drop(RELATIVE, relative_error(original, pruned), samples)


def suspicious(names: Sequence[str], outputs: Sequence[Array], samples: int, metric: str) -> tuple[str, ...]:
    """Warnings about a model's outputs (samples on axis 0): zero, constant or not finite.

    ``metric`` names the drop.  Such outputs usually mean that the model was trained on other data.  No warnings below
    :data:`FEW` samples.
    """
    warnings = []
    kinds = "iub" if metric == VALUES else "f"
    for name, output in zip(names, outputs, strict=True):
        if (
            output.dtype.kind not in kinds
            or not output.ndim
            or len(output) != samples
            or samples < FEW
            or not output.size
        ):
            continue
        rows = output.reshape(samples, -1).astype(np.float64)
        top = rows.argmax(axis=1)
        if not np.isfinite(rows).all():
            warnings.append(f"output '{name}' holds NaN or infinity")
        elif not rows.any():
            warnings.append(f"output '{name}' is zero for every sample")
        elif np.linalg.norm(rows - rows.mean(axis=0)) < FLAT * np.linalg.norm(rows):
            warnings.append(f"output '{name}' hardly changes from sample to sample")
        elif metric == CHANGED and (top == top[0]).all():
            warnings.append(f"all {samples} held-out samples get the same top-1 class, {top[0]}, at '{name}'")
    return tuple(f"{text}: check the data and --preprocess" for text in warnings)


def plain_loss(original: Sequence[Array], pruned: Sequence[Array]) -> float:
    """The output loss of class scores, labels, and other outputs without fields.  It is smoother than :func:`drop`.

    Probabilities: mean KL(original‖pruned).  Class scores: squared relative error of the scores minus their mean.  Unlike
    KL, this does not vanish if the original is sure of its answer, as on its training data.  Masks and labels:
    squared share of changed values.  Other outputs: squared relative L2 error.
    """
    if is_scores(original) and original[0].shape == pruned[0].shape:
        if is_probabilities(original[0]):
            p, q = log_probabilities(original[0]), log_probabilities(pruned[0])
            return float((np.exp(p) * (p - q)).sum(axis=1).mean())
        return relative_error([_centred(original[0])], [_centred(pruned[0])]) ** 2
    if is_discrete(original):
        return changed_values(original, pruned) ** 2
    return relative_error(original, pruned) ** 2


@dataclass(frozen=True)
class Accuracy:
    """Top-1 share on labelled samples."""

    top1: float
    samples: int


def check_labels(outputs: Sequence[Array], labels: Array) -> None:
    """Raise DataError if labels are not classes of the scores: every answer would count as wrong."""
    if not is_scores(outputs) or not labels.size:
        return
    classes, low, high = outputs[0].shape[1], int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        reach = f"go up to {high}" if high >= classes else f"start at {low}"
        raise DataError(
            f"labels {reach}, but the model scores {classes} classes, 0 to {classes - 1}: number the classes of the data "
            "as the model does, or leave the labels out"
        )


def accuracy(outputs: Sequence[Array], labels: Array) -> Accuracy | None:
    """Top-1 of class scores; ``None`` if the outputs are not class scores.

    Raises:
        DataError: see :func:`check_labels`.
    """
    if not is_scores(outputs):
        return None
    check_labels(outputs, labels)
    return Accuracy(float((outputs[0].argmax(axis=1) == labels).mean()), len(labels))
