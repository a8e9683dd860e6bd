"""Fit an image to the model's size (crop, letterbox or stretch), and move its boxes along."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxprune.calibration.dataset import InputSpec, shape_text
from onnxprune.calibration.layout import ImageLayout
from onnxprune.calibration.preprocess import Preprocess
from onnxprune.errors import DataError

DEFAULT_SIDE = 224
# As in the usual evaluation of classifiers: the crop is 87.5 % of the resized side (224 of 256).
CROP_RATIO = Fraction(7, 8)
# Models for small images (32, 64) are trained on whole images, so nothing is cropped off.
WHOLE_SIDE = 64
# The border of a letterboxed image, as detectors are usually trained.
GREY = 114


@dataclass(frozen=True)
class ImageFit:
    """How to fit an image to the size `crop` (height, width).

    fit "crop": scale it to cover `box` (height, width), keep its aspect ratio, and crop the centre. "letterbox": scale
    it to fit into `crop`, keep its aspect ratio, and add a grey border. "stretch": scale both sides to `crop`.
    """

    box: tuple[int, int]
    crop: tuple[int, int]
    fit: str = "crop"

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of an image of this size after scaling, without crop or border."""
        if self.fit == "stretch":
            return self.crop[1], self.crop[0]
        if self.fit == "letterbox":
            factor = min(self.crop[0] / height, self.crop[1] / width)
            return max(round(width * factor), 1), max(round(height * factor), 1)
        if (width, height) == (self.crop[1], self.crop[0]):
            return width, height
        if self.box[0] * width >= self.box[1] * height:
            return width * self.box[0] // height, self.box[0]
        return self.box[1], height * self.box[1] // width

    def offset(self, size: tuple[int, int]) -> tuple[int, int]:
        """(left, top) of the model's image within the scaled image of (width, height); negative for a border."""
        return round((size[0] - self.crop[1]) / 2), round((size[1] - self.crop[0]) / 2)

    def apply(self, image: Image.Image) -> Image.Image:
        """Fit an image, bilinear with antialiasing. An image of the right size stays unchanged."""
        height, width = self.crop
        if image.size == (width, height):
            return image
        size = self.scaled(*image.size)
        if size != image.size:
            image = image.resize(size, Image.Resampling.BILINEAR)
        left, top = self.offset(size)
        if self.fit != "letterbox":
            return image.crop((left, top, left + width, top + height))
        grey = GREY if image.mode == "L" else (GREY,) * len(image.getbands())
        framed = Image.new(image.mode, (width, height), grey)
        framed.paste(image, (-left, -top))
        return framed

    def move(self, boxes: NDArray[np.float64], width: int, height: int) -> NDArray[np.float64]:
        """Move boxes (N, 4) left, top, right, bottom of an image of this size to pixels of the fed image.

        Boxes outside the crop end up with zero area.
        """
        size = self.scaled(width, height)
        left, top = self.offset(size)
        factor = np.array([size[0] / width, size[1] / height] * 2)
        moved = boxes * factor - np.array([left, top, left, top])
        return np.asarray(np.clip(moved, 0, [self.crop[1], self.crop[0]] * 2))


def image_fit(spec: InputSpec, layout: ImageLayout, preprocess: Preprocess) -> tuple[ImageFit, tuple[str, ...]]:
    """The geometry for this input, and notes for the user.

    The crop is the model's height and width. If those are free, it is `preprocess.crop`, or else what the model's
    metadata states, or else 224. The box is the crop / 0.875, rounded up. For crops up to 64 pixels it is the crop
    itself. `preprocess.resize` sets the shorter side of the box. Raises DataError if crop or resize contradict the model.
    """
    asked = preprocess.crop or spec.picture or (0, 0)
    crop = (_side(layout.height, asked[0], layout.width), _side(layout.width, asked[1], layout.height))
    if preprocess.crop not in (None, crop):
        raise DataError(
            f"crop {shape_text(preprocess.crop)} does not fit input '{spec.name}' "
            f"of shape {shape_text(spec.shape)}; leave --crop out"
        )
    notes: tuple[str, ...] = ()
    if None in (layout.height, layout.width) and preprocess.crop is None:
        notes = (
            f"'{spec.name}' has a dynamic height or width: images are fed at {shape_text(crop)}"
            f"{', as the metadata of the model states' if crop == spec.picture else ''}; --crop sets another size",
        )
    if preprocess.fit != "crop":
        return ImageFit(crop, crop, preprocess.fit), notes
    shorter = min(crop)
    if preprocess.resize is None:
        box = crop if shorter <= WHOLE_SIDE else (_ceil(crop[0] / CROP_RATIO), _ceil(crop[1] / CROP_RATIO))
    elif preprocess.resize < shorter:
        raise DataError(f"resize {preprocess.resize} is below the crop {shape_text(crop)} of '{spec.name}'; raise it")
    else:
        growth = Fraction(preprocess.resize, shorter)
        box = (_ceil(crop[0] * growth), _ceil(crop[1] * growth))
    return ImageFit(box, crop), notes


def _side(own: int | None, asked: int, other: int | None) -> int:
    return own or asked or other or DEFAULT_SIDE


def _ceil(value: Fraction) -> int:
    return -(-value.numerator // value.denominator)
