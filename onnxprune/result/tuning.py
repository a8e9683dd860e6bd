"""What tuning did."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from onnxprune.result.display import page, summary
from onnxprune.result.drop import Drop


@dataclass(frozen=True)
class TuningPoint:
    """One evaluation on the held-out samples during tuning.

    ``seconds`` counts from the start.  ``samples`` counts the samples trained on so far, with repetitions.  ``loss`` is
    the mean over the steps since the last evaluation, NaN at the first.  ``held`` is the mean error of the outputs on
    the held-out samples, ``same_top1`` the share of them (0 … 1) with the same class from both models, None if the outputs are
    not class scores.
    """

    seconds: float
    samples: int
    loss: float
    held: float
    same_top1: float | None = None


@dataclass(frozen=True)
class Stage:
    """A model on the way to the result: "original", "cut", "refitted" or "tuned".

    ``drop`` is on the held-out samples.  ``accuracy`` is on labelled samples, 0 … 1, or None without labels.
    """

    name: str
    drop: Drop
    accuracy: float | None


@dataclass(frozen=True)
class Tuning:
    """What tuning did.

    ``before`` and ``after`` are the mean errors of the outputs on ``held`` held-out samples, in units of a channel's
    variance, or as a divergence.  They are equal if the weights stay.  ``gained`` says whether the difference is more
    than chance.  ``samples`` counts the training samples, ``weights`` the trained tensors.  ``stages`` shows the quality
    of the model on the way.
    """

    before: float
    after: float
    gained: bool
    curve: tuple[TuningPoint, ...]
    seconds: float
    samples: int
    held: int
    weights: int
    device: str
    notes: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = ()


@dataclass(frozen=True, eq=False)
class Tuned:
    """The result of :func:`onnxprune.tune`: the tuned ``model``, and what ``tuning`` did; a notebook shows the curve.

    ``path`` is the written file; None from Python, which writes nothing.
    """

    model: onnx.ModelProto
    tuning: Tuning
    path: Path | None = None

    def __repr__(self) -> str:
        return summary(self)

    def _repr_html_(self) -> str | None:
        return page(self)
