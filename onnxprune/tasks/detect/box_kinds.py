"""The kind and the unit of a dense detector's boxes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.special import softmax

from onnxprune.tasks.detect.grid import GridLevel
from onnxprune.tasks.detect.layout import Layout

Array = np.ndarray
#: Minimum share of boxes that satisfy the rules of a format.  A few of thousands may be degenerate.
NEARLY_ALL = 0.995
#: Minimum correlation of box centres with the centres of their cells.
FOLLOWS = 0.8
#: Minimum ratio of the mean distances to opposite sides.  A detector of faces had 0.92 to 1.0; offsets within the cell and
#: logarithms of sizes had 0.3 to 0.7.
MIRRORED = 0.8
#: Maximum negative distance, as a share of the usual distances: what rounding leaves of zero.
SLACK = 0.01
#: Share of values above zero from which offsets within the cell may be taken for distances.
STRADDLING = 0.9
#: Maximum value of a normalised box.  Boxes may extend beyond the image, but hardly by a whole side.
NORMALISED = 2.5


def with_boxes(
    raw: Array, layout: Layout, grids: tuple[GridLevel, ...], size: tuple[int, int], given: Mapping[str, object]
) -> Layout | None:
    """The layout with its kind of box and its unit; None if the values are not boxes."""
    if not np.isfinite(raw).all():
        return None
    if layout.bins > 1:
        logits = raw.reshape(*raw.shape[:2], 4, layout.bins).astype(np.float64)
        # Distributions over distances have a peak.  Class scores read as distributions are flat.
        peaked = float(np.median(softmax(logits, axis=3).max(axis=3)))
        if not grids or peaked < 1.5 / layout.bins:
            return None
        return layout.stated(
            {"box": "distances", "unit": "strides", **{name: given[name] for name in ("box", "unit") if name in given}}
        )
    box = str(given["box"]) if "box" in given else _box(raw, grids, size)
    if box is None:
        return None
    unit = str(given["unit"]) if "unit" in given else _unit(raw, box, grids)
    return layout.stated({"box": box, "unit": unit})


def _box(raw: Array, grids: tuple[GridLevel, ...], size: tuple[int, int]) -> str | None:
    flat = raw.reshape(-1, 4).astype(np.float64)
    reach = np.array([size[1], size[0]]) if _span(flat) > NORMALISED else np.ones(2)
    spread = (flat[:, :2].std(axis=0) > 0.05 * reach).all()
    if spread and np.mean((flat[:, 2:] > flat[:, :2]).all(axis=1)) >= NEARLY_ALL and _inside(flat, reach, 1.0):
        return "xyxy"
    sizes = np.mean((flat[:, 2:] >= 0).all(axis=1)) >= NEARLY_ALL
    if grids:
        moving = follows(raw, grids)
        if sizes and moving:
            return "xywh"
        # If all distances were below one stride or one pixel, all objects would be smaller than two cells.
        distances = not moving and np.mean(flat >= 0) >= 0.98 and _span(flat) > 1.05
        offsets = not moving and _offsets(flat) and bool((flat < 0).any())
        if distances and (_mirrored(flat) or not offsets):
            return "distances"
        if offsets:
            return "grid"
    # The number of places may match a grid by chance.
    return "xywh" if sizes and spread and _inside(flat[:, :2], reach, 0.1) else None


def _offsets(flat: Array) -> bool:
    """Whether these may be offsets within a cell, and logarithms of sizes."""
    logs = np.mean(np.abs(flat[:, 2:]) <= 6) >= NEARLY_ALL
    return bool(logs and np.mean((flat[:, :2] > -2) & (flat[:, :2] < 3)) >= 0.98)


def _mirrored(flat: Array) -> bool:
    """Whether the distances to the left and to the right are alike on average, and those to the top and to the bottom."""
    means = flat.mean(axis=0)
    ratio = means[:2] / np.where(means[2:] == 0, 1e-12, means[2:])
    return bool(((ratio >= MIRRORED) & (ratio <= 1 / MIRRORED)).all())


def box_doubts(raw: Array, layout: Layout, grids: tuple[GridLevel, ...], given: Mapping[str, object]) -> tuple[str, ...]:
    """What the values of boxes on a grid leave open, with the words of ``--layout`` that settle it."""
    if "box" in given or layout.bins > 1 or layout.box not in ("grid", "distances"):
        return ()
    if layout.box == "grid" and any(level.count > 1 for level in grids):
        return ("whether boxes, several per cell, are offsets within the cell or to prior boxes (grid, priors)",)
    flat = raw.reshape(-1, 4).astype(np.float64)
    positive = float(np.mean(flat >= -SLACK * _span(flat)))
    if layout.box == "distances":
        settled = positive >= NEARLY_ALL and (_mirrored(flat) or not _offsets(flat))
    else:
        settled = positive < STRADDLING or not _mirrored(flat)
    return () if settled else ("whether boxes are distances to the sides or offsets within the cell (distances, grid)",)


def _span(flat: Array) -> float:
    return float(np.quantile(np.abs(flat), 0.999))


def _inside(points: Array, reach: Array, margin: float) -> bool:
    """Whether nearly all points lie in the image, or outside it by at most ``margin`` of its sides."""
    limits = np.tile(reach, points.shape[1] // 2)
    return bool(np.mean((points >= -margin * limits) & (points <= (1 + margin) * limits)) >= NEARLY_ALL)


def follows(raw: Array, grids: tuple[GridLevel, ...]) -> bool:
    """Whether the first two fields correlate with the x and y of their places."""
    centres = np.concatenate([level.centres() for level in grids])
    correlations = []
    for axis in (0, 1):
        values, place = raw[..., axis].astype(np.float64), centres[:, axis]
        place = place - place.mean()
        spread = np.linalg.norm(values - values.mean(axis=1, keepdims=True), axis=1) * np.linalg.norm(place)
        correlations.append(float(np.mean((values @ place) / np.maximum(spread, 1e-12))))
    return min(correlations) >= FOLLOWS


def _unit(raw: Array, box: str, grids: tuple[GridLevel, ...]) -> str:
    if box == "grid":
        return "strides"
    if box == "priors":
        return "normalised"
    if box != "distances":
        return "normalised" if _span(raw.reshape(-1, 4)) <= NORMALISED else "pixels"
    if len(grids) < 2:
        # In strides, distances are small: objects are a few cells wide.
        return "strides" if _span(raw.reshape(-1, 4)) <= 32 else "pixels"
    # Levels with a greater stride detect larger objects.  In strides their distances are similar; in pixels they grow.
    ends = np.cumsum([level.places for level in grids])
    means = [float(part.mean()) for part in np.split(raw, ends[:-1], axis=1)]
    growth = grids[-1].stride / grids[0].stride
    return "pixels" if means[-1] > means[0] * growth**0.5 else "strides"
