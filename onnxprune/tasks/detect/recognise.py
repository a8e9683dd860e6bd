"""What the values of a dense detector's outputs tell about their layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from onnxprune.tasks.answers import Answers
from onnxprune.tasks.detect.dense import split
from onnxprune.tasks.detect.grid import Level
from onnxprune.tasks.detect.layout import Layout
from onnxprune.tasks.detect.wiring import Wiring, levels, wirings

Array = np.ndarray
#: Samples that are looked at.
SEEN = 8
#: Share of boxes that must hold what a format promises: a few of thousands may be degenerate.
NEARLY_ALL = 0.995
#: Correlation of box centres with the centres of the cells that they belong to, from which they are centres.
FOLLOWS = 0.8
#: A set of predictions holds this many at least, of which at most SOME say that something is there.
LEAST, SOME = 50, 0.2
#: Share of logits below zero.
MOSTLY = 0.9
#: A score from which a place says that something is there; places that do so are few, at most this share.
THERE, FEW = 0.3, 0.03
#: Numbers up to here are shares of the picture's sides: boxes reach over its edges, but hardly by a whole side.
NORMALISED = 2.5


@dataclass(frozen=True)
class Recognised:
    """A reading of outputs; ``doubts``: what could not be told, in words that name the words of ``--layout``."""

    layout: Layout
    wiring: Wiring
    levels: tuple[Level, ...]
    doubts: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[int, ...]:
        """Positions of the outputs that are read."""
        wiring = self.wiring
        return (*wiring.combined, *wiring.boxes, *wiring.scores, *wiring.objectness)


def recognise(answers: Answers, given: Mapping[str, object]) -> Recognised | None:
    """The reading of dense outputs that their shapes and values allow, or None.  ``given``: see ``parse_layout``."""
    if answers.size is None or not answers.batches:
        return None
    arrays, samples = answers.batches[0], answers.counts[0]
    axis = given.get("axis")
    found = []
    for wiring in wirings(arrays, samples, None if axis is None else str(axis)):
        grids = levels(arrays, wiring, samples, answers.size)
        read = _read(arrays, samples, wiring, grids, answers.size, given)
        if read is not None:
            found.append(read)
    return min(found, key=_rank) if found else None


def _rank(found: Recognised) -> tuple[bool, int, int]:
    """Places on a grid are the best evidence, then few doubts, then that most outputs are read."""
    return not found.levels, len(found.doubts), -len(found.reads)


def _read(
    arrays: Sequence[Array],
    samples: int,
    wiring: Wiring,
    grids: tuple[Level, ...],
    size: tuple[int, int],
    given: Mapping[str, object],
) -> Recognised | None:
    start = Layout(axis=wiring.axis).stated(given)
    for bins in _bins(arrays, wiring, samples, given):
        layout = Layout(**{**vars(start), "bins": bins})
        boxes, scores, _ = split(arrays, wiring, layout, samples)
        if boxes.shape[2] != 4 * bins or scores.shape[2] < 1 or boxes.shape[1] < 4:
            continue
        placed = _boxes(boxes[:SEEN], layout, grids, size, given)
        if placed is None:
            continue
        on_grid = grids if placed.box in ("distances", "grid") or (grids and _follows(boxes[:SEEN], grids)) else ()
        if wiring.combined and "keypoints" not in given:
            placed = Layout(**{**vars(placed), "keypoints": _keypoints(scores[:SEEN])})
        _, scores, _ = split(arrays, wiring, placed, samples)
        if wiring.combined and not on_grid and not given and not _set(arrays, wiring, boxes, scores):
            continue
        read = _scores(scores[:SEEN], placed, wiring, bool(on_grid), given)
        if read is not None:
            scored, doubts = read
            return Recognised(scored, wiring, on_grid, doubts)
    return None


def _set(arrays: Sequence[Array], wiring: Wiring, boxes: Array, scores: Array) -> bool:
    """Whether rows on no grid may be a set of predictions: no maps, more rows than fields, no rows of shares, and few
    that say that something is there."""
    if any(arrays[i].ndim > 3 for i in wiring.combined) or boxes.shape[1] < max(LEAST, 4 + scores.shape[2]):
        return False
    sums = boxes.sum(axis=2, dtype=np.float64) + scores.sum(axis=2, dtype=np.float64)
    return not np.allclose(sums, 1.0, atol=1e-2) and float(np.mean(scores.max(axis=2) >= THERE)) <= SOME


def _bins(arrays: Sequence[Array], wiring: Wiring, samples: int, given: Mapping[str, object]) -> tuple[int, ...]:
    if "bins" in given:
        return (int(str(given["bins"])),)
    if wiring.combined:
        # Beside classes the usual number of bins is 16: their number cannot be told from the number of fields.
        return (1, 16)
    fields = split(arrays, wiring, Layout(), samples)[0].shape[2]
    return (fields // 4,)


# -- boxes ------------------------------------------------------------------------------------------------------


def _boxes(
    raw: Array, layout: Layout, grids: tuple[Level, ...], size: tuple[int, int], given: Mapping[str, object]
) -> Layout | None:
    """The layout with its kind of box and its unit; None where the values are no boxes."""
    if not np.isfinite(raw).all():
        return None
    if layout.bins > 1:
        logits = raw.reshape(*raw.shape[:2], 4, layout.bins).astype(np.float64)
        # Distributions over distances have a peak that moves; class scores read as such are flat.
        peaked = float(np.median(softmax(logits, axis=3).max(axis=3)))
        if not grids or peaked < 1.5 / layout.bins:
            return None
        return layout.stated({"box": "distances", "unit": "strides", **_only(given, "box", "unit")})
    box = str(given["box"]) if "box" in given else _box(raw, grids, size)
    if box is None:
        return None
    unit = str(given["unit"]) if "unit" in given else _unit(raw, box, grids)
    return layout.stated({"box": box, "unit": unit})


def _box(raw: Array, grids: tuple[Level, ...], size: tuple[int, int]) -> str | None:
    flat = raw.reshape(-1, 4).astype(np.float64)
    reach = np.array([size[1], size[0]]) if _span(flat) > NORMALISED else np.ones(2)
    spread = (flat[:, :2].std(axis=0) > 0.05 * reach).all()
    if spread and np.mean((flat[:, 2:] > flat[:, :2]).all(axis=1)) >= NEARLY_ALL and _inside(flat, reach, 1.0):
        return "xyxy"
    sizes = np.mean((flat[:, 2:] >= 0).all(axis=1)) >= NEARLY_ALL
    if grids:
        follows = _follows(raw, grids)
        if sizes and follows:
            return "xywh"
        # Distances that all stay below one stride, or one pixel, would be of things smaller than two cells.
        if not follows and np.mean(flat >= 0) >= 0.98 and _span(flat) > 1.05:
            return "distances"
        logs = np.mean(np.abs(flat[:, 2:]) <= 6) >= NEARLY_ALL
        near = np.mean((flat[:, :2] > -2) & (flat[:, :2] < 3)) >= 0.98
        if logs and near and not follows and (flat[:, 2:] < 0).any():
            return "grid"
    # As many places as some grid has may be so by chance.
    return "xywh" if sizes and spread and _inside(flat[:, :2], reach, 0.1) else None


def _span(flat: Array) -> float:
    return float(np.quantile(np.abs(flat), 0.999))


def _inside(points: Array, reach: Array, margin: float) -> bool:
    """Whether nearly all points lie in the picture, or over its edge by ``margin`` of its sides at most."""
    limits = np.tile(reach, points.shape[1] // 2)
    return bool(np.mean((points >= -margin * limits) & (points <= (1 + margin) * limits)) >= NEARLY_ALL)


def _follows(raw: Array, grids: tuple[Level, ...]) -> bool:
    """Whether the first two fields grow with the places' x and y."""
    centres = np.concatenate([level.centres() for level in grids])
    told = []
    for axis in (0, 1):
        values, place = raw[..., axis].astype(np.float64), centres[:, axis]
        place = place - place.mean()
        spread = np.linalg.norm(values - values.mean(axis=1, keepdims=True), axis=1) * np.linalg.norm(place)
        told.append(float(np.mean((values @ place) / np.maximum(spread, 1e-12))))
    return min(told) >= FOLLOWS


def _unit(raw: Array, box: str, grids: tuple[Level, ...]) -> str:
    if box == "grid":
        return "strides"
    if box == "priors":
        return "normalised"
    if box != "distances":
        return "normalised" if _span(raw.reshape(-1, 4)) <= NORMALISED else "pixels"
    if len(grids) < 2:
        # Objects are a few cells wide.
        return "strides" if _span(raw.reshape(-1, 4)) <= 32 else "pixels"
    # Levels of greater stride find larger things: in strides their distances are alike, in pixels they grow.
    ends = np.cumsum([level.places for level in grids])
    means = [float(part.mean()) for part in np.split(raw, ends[:-1], axis=1)]
    growth = grids[-1].stride / grids[0].stride
    return "pixels" if means[-1] > means[0] * growth**0.5 else "strides"


# -- scores -----------------------------------------------------------------------------------------------------


def _scores(
    raw: Array, layout: Layout, wiring: Wiring, grid: bool, given: Mapping[str, object]
) -> tuple[Layout, tuple[str, ...]] | None:
    """The layout with its kind of score and its activation, and what is in doubt; None where these are no scores."""
    if not np.isfinite(raw).all():
        return None
    bounded = bool(raw.min() >= -1e-3 and raw.max() <= 1 + 1e-3)
    if "activation" not in given:
        layout = layout.stated({"activation": "probabilities" if bounded else "sigmoid"})
    if layout.activation == "probabilities" and not bounded:
        return None
    if layout.activation == "sigmoid" and "activation" not in given and not _logits(raw, wiring):
        return None
    if "score" in given:
        return layout, ()
    if wiring.objectness:
        return layout.stated({"score": "objectness"}), ()
    background = _background(raw, layout, grid)
    if background is not None:
        return layout.stated(background), ()
    if not wiring.combined or raw.shape[2] < 2 or layout.keypoints:
        return layout, ()
    objectness = _objectness(raw if layout.activation == "probabilities" else 1 / (1 + np.exp(-raw)))
    if objectness is None:
        doubt = "whether the fifth field is an objectness or the first class (objectness, classes)"
        return layout, (doubt,)
    return layout.stated({"score": "objectness" if objectness else "classes"}), ()


def _logits(raw: Array, wiring: Wiring) -> bool:
    """Whether these may be logits: those of what is mostly not there are negative.  Behind an objectness, classes are
    told of every place."""
    below = np.mean(raw < 0, axis=(0, 1))
    if wiring.combined or wiring.objectness:
        return bool(below[0] >= MOSTLY)
    # One of the classes may be the background.
    return max(float(np.mean(b)) for b in (below, below[1:], below[:-1]) if b.size) >= MOSTLY


def _background(raw: Array, layout: Layout, grid: bool) -> dict[str, object] | None:
    """Scores that sum to one have a background, in the first or the last place; so may the logits of a set of
    predictions that lies on no grid."""
    if raw.shape[2] < 2:
        return None
    if layout.activation == "probabilities":
        if not np.allclose(raw.sum(axis=2, dtype=np.float64), 1.0, atol=2e-3):
            return None
        mean = raw.mean(axis=(0, 1))
    else:
        if grid:
            return None
        mean = np.bincount(raw.argmax(axis=2).ravel(), minlength=raw.shape[2]) / raw[..., 0].size
    first, last = float(mean[0]), float(mean[-1])
    if max(first, last) < 0.5:
        return None
    # Of scores that are told one by one the most frequent class is no background: its logits are below zero, too.
    if layout.activation != "probabilities" and np.median(raw[..., 0 if first > last else -1]) < 0:
        return None
    found: dict[str, object] = {"score": "background-first" if first > last else "background-last"}
    return found if layout.activation == "probabilities" else {**found, "activation": "softmax"}


def _objectness(scores: Array) -> bool | None:
    """Whether the first score is an objectness; None where the values do not tell.

    A place that is an object is of some class: where an objectness is high, so is the best of the classes behind it.
    Where the first class is high, the others are low.
    """
    first, others = scores[..., 0].ravel(), scores[..., 1:].max(axis=2).ravel()
    high = first >= THERE
    if np.count_nonzero(high) >= 3:
        return bool(np.median(others[high]) >= THERE)
    # Classes behind an objectness are told of every place, also of those where nothing is.
    busy = others >= THERE
    # Where nothing is found either way, that is what must be told.
    return False if np.mean(busy) <= FEW else None


def _keypoints(scores: Array) -> int:
    """How many (x, y, visible) follow the scores: coordinates in pixels are no scores, each third value is one."""
    fields = scores.shape[2]
    over = (scores.max(axis=(0, 1)) > 1 + 1e-3) | (scores.min(axis=(0, 1)) < -1e-3)
    if not over.any():
        return 0
    first = int(np.argmax(over))
    count, left = divmod(fields - first, 3)
    bounded = not over[first + 2 :: 3].any()
    # Logits of classes are out of bounds everywhere.
    return count if first >= 1 and left == 0 and count and bounded else 0


def _only(given: Mapping[str, object], *names: str) -> dict[str, object]:
    return {name: given[name] for name in names if name in given}
