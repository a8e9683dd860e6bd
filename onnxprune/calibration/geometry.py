"""From a picture's size to the model's: cropped, letterboxed or stretched; and where its boxes then lie."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxprune.calibration.dataset import InputSpec, shape_text
from onnxprune.calibration.layout import Layout
from onnxprune.calibration.preprocess import Preprocess
from onnxprune.errors import DataError

DEFAULT_SIDE = 224
# The usual evaluation of classifiers: the crop is 87.5 % of the resized side (224 of 256).
CROP_RATIO = Fraction(7, 8)
# Models of small pictures (32, 64) are trained on whole ones, so nothing is cropped off.
WHOLE_SIDE = 64
# What surrounds a letterboxed picture, as YOLO's training code has it.
GREY = 114


@dataclass(frozen=True)
class Geometry:
    """Scale a picture to cover `box` (height, width) with its shape kept, then crop the centre to `crop`.

    fit: "crop"; or "letterbox", to scale it into `crop` with its shape kept and surround it by grey; or "stretch", to
    scale both sides to `crop`.
    """

    box: tuple[int, int]
    crop: tuple[int, int]
    fit: str = "crop"

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of a picture of this size after scaling, before it is cropped or surrounded."""
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
        """Where the model's picture begins, (left, top), in the scaled one of (width, height); below zero for grey."""
        return round((size[0] - self.crop[1]) / 2), round((size[1] - self.crop[0]) / 2)

    def apply(self, image: Image.Image) -> Image.Image:
        """Bilinear with antialiasing. A picture that has the crop's size already is left as it is."""
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
        """Boxes (N, 4) left, top, right, bottom of a picture of this size, in pixels of what is fed; those that are
        cropped off come out without area."""
        size = self.scaled(width, height)
        left, top = self.offset(size)
        factor = np.array([size[0] / width, size[1] / height] * 2)
        moved = boxes * factor - np.array([left, top, left, top])
        return np.asarray(np.clip(moved, 0, [self.crop[1], self.crop[0]] * 2))


def geometry(spec: InputSpec, layout: Layout, preprocess: Preprocess) -> tuple[Geometry, tuple[str, ...]]:
    """Crop and resize for this input, and what to say about them.

    The crop is the model's height and width; where those are free, `preprocess.crop`, or else 224. The box to
    scale to is the crop / 0.875 rounded up, the crop itself up to 64 pixels, or `preprocess.resize` for its
    shorter side. Raises DataError where crop or resize contradict the model.
    """
    asked = (0, 0) if preprocess.crop is None else preprocess.crop
    crop = (_side(layout.height, asked[0], layout.width), _side(layout.width, asked[1], layout.height))
    if preprocess.crop not in (None, crop):
        raise DataError(
            f"crop {shape_text(preprocess.crop)} does not fit input '{spec.name}' "
            f"of shape {shape_text(spec.shape)}; leave --crop out"
        )
    notes: tuple[str, ...] = ()
    if None in (layout.height, layout.width) and preprocess.crop is None:
        notes = (
            f"'{spec.name}' leaves height or width free: images are fed at {shape_text(crop)}; "
            "--crop sets another size",
        )
    if preprocess.fit != "crop":
        return Geometry(crop, crop, preprocess.fit), notes
    shorter = min(crop)
    if preprocess.resize is None:
        box = crop if shorter <= WHOLE_SIDE else (_ceil(crop[0] / CROP_RATIO), _ceil(crop[1] / CROP_RATIO))
    elif preprocess.resize < shorter:
        raise DataError(f"resize {preprocess.resize} is below the crop {shape_text(crop)} of '{spec.name}'; raise it")
    else:
        growth = Fraction(preprocess.resize, shorter)
        box = (_ceil(crop[0] * growth), _ceil(crop[1] * growth))
    return Geometry(box, crop), notes


def _side(own: int | None, asked: int, other: int | None) -> int:
    return own or asked or other or DEFAULT_SIDE


def _ceil(value: Fraction) -> int:
    return -(-value.numerator // value.denominator)
