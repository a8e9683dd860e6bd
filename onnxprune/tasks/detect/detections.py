"""The detections on one sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Detections:
    """Detections, the most confident first.

    ``boxes`` (N, 4): left, top, right, bottom in pixels of the image fed.  ``scores`` (N,).  ``classes`` (N,) int64.
    ``points`` (N, K, 3): x, y and visibility, or None.
    """

    boxes: Array
    scores: Array
    classes: Array
    points: Array | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, chosen: Array) -> Detections:
        """The detections that an index or a mask selects."""
        points = None if self.points is None else self.points[chosen]
        return Detections(self.boxes[chosen], self.scores[chosen], self.classes[chosen], points)

    def above(self, score: float) -> Detections:
        return self.take(self.scores >= score)


def ranked(boxes: Array, scores: Array, classes: Array, points: Array | None, most: int) -> Detections:
    """The ``most`` best, by score.  Equal scores are ordered by class and position: the order of rows does not matter."""
    order = np.lexsort((*boxes.T[::-1], classes, -scores))[:most]
    everything = Detections(boxes.astype(np.float64), scores.astype(np.float64), classes.astype(np.int64), points)
    return everything.take(order)
