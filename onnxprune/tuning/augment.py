"""Mild augmentations of pictures, the same for both models: mirror, shift, mix two, paste a part of another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnxprune.calibration.dataset import Feeds, InputSpec
from onnxprune.calibration.layout import image_layout
from onnxprune.errors import OptionError
from onnxprune.options import AUGMENTS

Array = np.ndarray
#: Largest shift, as a share of the side.
SHIFT = 1 / 8


@dataclass(frozen=True)
class Augment:
    """``axes``: input name -> (height axis, width axis), for every input that holds pictures."""

    kinds: frozenset[str]
    axes: Mapping[str, tuple[int, int]]

    def __call__(self, feeds: Feeds, generator: np.random.Generator) -> Feeds:
        """A changed copy of a batch.

        Mirrors half of the samples, on average, and shifts all.  In half of the batches, mixes each sample with another
        (Zhang et al., arXiv 1710.09412).  In the other half, pastes a rectangle of another sample into each (Yun et al.,
        arXiv 1905.04899).  The shares come from a uniform distribution.
        """
        if not self.axes or not self.kinds:
            return feeds
        count = len(next(iter(feeds.values())))
        mirrored = generator.random(count) < 0.5
        shifts = generator.uniform(-SHIFT, SHIFT, (count, 2))
        mixing, order, share = generator.random() < 0.5, generator.permutation(count), generator.random(count)
        corners = generator.random((count, 2))
        changed = dict(feeds)
        for name, (height, width) in self.axes.items():
            changed[name] = self._changed(feeds[name], height, width, mirrored, shifts)
            if mixing and "mix" in self.kinds and feeds[name].dtype.kind == "f":
                changed[name] = _mixed(changed[name], share, order)
            elif not mixing and "cut" in self.kinds:
                changed[name] = _pasted(changed[name], (height, width), share, corners, order)
        return changed

    def _changed(self, pictures: Array, height: int, width: int, mirrored: Array, shifts: Array) -> Array:
        changed = np.empty_like(pictures)
        for k, picture in enumerate(pictures):
            if "mirror" in self.kinds and mirrored[k]:
                picture = np.flip(picture, width - 1)
            if "shift" in self.kinds:
                picture = _shifted(_shifted(picture, height - 1, shifts[k, 0]), width - 1, shifts[k, 1])
            changed[k] = picture
        return changed


def _mixed(pictures: Array, share: Array, order: Array) -> Array:
    weight = share.reshape(-1, *[1] * (pictures.ndim - 1)).astype(pictures.dtype)
    return np.asarray(weight * pictures + (1 - weight) * pictures[order])


def _pasted(pictures: Array, axes: tuple[int, int], share: Array, corners: Array, order: Array) -> Array:
    """Each picture with a rectangle of another at the same place; ``share`` of its own area stays."""
    pasted = pictures.copy()
    for k, other in enumerate(order):
        place: list[slice] = [slice(None)] * (pictures.ndim - 1)
        for axis, corner in zip(axes, corners[k], strict=True):
            size = pictures.shape[axis]
            length = round(size * float(np.sqrt(1 - share[k])))
            start = round(corner * (size - length))
            place[axis - 1] = slice(start, start + length)
        where = tuple(place)
        pasted[k][where] = pictures[other][where]
    return pasted


def _shifted(picture: Array, axis: int, share: float) -> Array:
    """``picture``, moved along ``axis`` by ``share`` of its length.  Repeats the edge."""
    size = picture.shape[axis]
    return np.asarray(np.take(picture, np.clip(np.arange(size) + round(share * size), 0, size - 1), axis))


def augment(specs: tuple[InputSpec, ...], asked: str) -> Augment:
    """``asked``: "auto" for all, "none", or some of :data:`onnxprune.options.AUGMENTS`, separated by commas.

    Only inputs that hold pictures change.

    Raises:
        OptionError: unknown kind.
    """
    names = AUGMENTS if asked == "auto" else () if asked == "none" else tuple(part.strip() for part in asked.split(","))
    for name in names:
        if name not in AUGMENTS:
            raise OptionError(f"augment: unknown kind {name!r}; choose from auto, none, {', '.join(AUGMENTS)}")
    axes = {}
    for spec in specs:
        layout = image_layout(spec)
        # Another input may hold places in the picture, which a shift would make wrong.
        if layout is None or not layout.batched or len(specs) > 1:
            continue
        axes[spec.name] = (1, 2) if layout.channel_axis == -1 or layout.channel_axis is None else (2, 3)
    return Augment(frozenset(names), axes)
