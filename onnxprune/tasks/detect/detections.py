"""What a detector found on one sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Detections:
    """Detections, the most confident first.

    ``boxes``: (N, 4) left, top, right, bottom in pixels of the picture fed; ``scores``: (N,); ``classes``: (N,) int64;
    ``points``: (N, K, 3) x, y and how visible, or None.
    """

    boxes: Array
    scores: Array
    classes: Array
    points: Array | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, chosen: Array) -> Detections:
        """Those that an index or a mask picks."""
        points = None if self.points is None else self.points[chosen]
        return Detections(self.boxes[chosen], self.scores[chosen], self.classes[chosen], points)

    def above(self, score: float) -> Detections:
        return self.take(self.scores >= score)


def ranked(boxes: Array, scores: Array, classes: Array, points: Array | None, most: int) -> Detections:
    """The ``most`` best, by score; equal scores are ordered by class and place, so that rows may come in any order."""
    order = np.lexsort((*boxes.T[::-1], classes, -scores))[:most]
    found = Detections(boxes.astype(np.float64), scores.astype(np.float64), classes.astype(np.int64), points)
    return found.take(order)
