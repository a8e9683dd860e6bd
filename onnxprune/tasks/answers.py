"""The outputs of a model over a dataset, batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnxruntime as ort

from onnxprune.calibration.dataset import Dataset, is_float
from onnxprune.calibration.layout import image_layout
from onnxprune.calibration.outputs import BATCH
from onnxprune.engine.session import run
from onnxprune.graph.metadata import class_names

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Answers:
    """The outputs of a model, unchanged.

    ``batches`` holds one array per batch and name; ``counts`` holds the samples per batch.  Batches stay separate,
    because the number of rows of a detector's output depends on what it finds.
    ``size`` is the (height, width) of the image fed, None if no input is an image.
    ``tokens`` says whether the first input holds integers.
    ``classes`` names the classes that the model's metadata name.
    """

    names: tuple[str, ...]
    batches: tuple[tuple[Array, ...], ...]
    counts: tuple[int, ...]
    size: tuple[int, int] | None = None
    tokens: bool = False
    classes: Mapping[int, str] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        return sum(self.counts)

    def called(self, number: int) -> str:
        """What to call class ``number``.

        >>> answers = Answers((), (), (), classes={0: "cat"})
        >>> answers.called(0), answers.called(1)
        ('cat', 'class 1')
        """
        return self.classes.get(number) or f"class {number}"

    def parts(self, index: int) -> list[Array]:
        """Output ``index``, batch by batch."""
        return [batch[index] for batch in self.batches]

    def row(self, index: int) -> tuple[int, ...] | None:
        """The shape of one sample of output ``index``; None if it has no sample axis, or if its shape changes."""
        parts = self.parts(index)
        if any(p.ndim == 0 or len(p) != count for p, count in zip(parts, self.counts, strict=True)):
            return None
        return parts[0].shape[1:] if all(p.shape[1:] == parts[0].shape[1:] for p in parts) else None

    def stacked(self, index: int) -> Array | None:
        """A copy of output ``index`` with samples on axis 0; None if :meth:`row` is None."""
        return None if self.row(index) is None else np.concatenate(self.parts(index))


def answers_of(session: ort.InferenceSession, dataset: Dataset, names: Sequence[str], batch: int = BATCH) -> Answers:
    """Run ``session`` over ``dataset``.  Cost: one pass, and memory for all outputs."""
    batches, counts = [], []
    size: tuple[int, int] | None = None
    for feeds, rows in zip(dataset.batches(batch), dataset.rows(batch), strict=True):
        fed = dataset.batch_limit or len(rows)
        arrays = run(session, feeds, names)
        # The dataset fills a short batch with repeated samples.
        batches.append(tuple(a[: len(rows)] if a.ndim and len(a) == fed > len(rows) else a for a in arrays))
        counts.append(len(rows))
        size = _picture_size(dataset, feeds)
    tokens = bool(dataset.specs) and not is_float(dataset.specs[0].dtype) and len(dataset.specs[0].shape) < 3
    classes = class_names(session.get_modelmeta().custom_metadata_map)
    return Answers(tuple(names), tuple(batches), tuple(counts), size, tokens, classes)


def _picture_size(dataset: Dataset, feeds: dict[str, Array]) -> tuple[int, int] | None:
    for spec in dataset.specs:
        layout = image_layout(spec)
        if layout is None:
            continue
        shape = feeds[spec.name].shape
        sides = shape if layout.channel_axis is None else np.delete(shape, layout.channel_axis)
        return int(sides[-2]), int(sides[-1])
    return None
