"""From bytes 0..255 to the numbers that the model was trained on: presets, and the tables that apply them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.calibration.dataset import InputSpec, integer_range, is_float, is_integer
from onnxprune.calibration.layout import ImageLayout
from onnxprune.errors import DataError
from onnxprune.spelling import nearest

# How an image gets the model's size: crop its centre, add a grey border, or scale each side independently.
FITS = ("crop", "letterbox", "stretch")


@dataclass(frozen=True)
class Preprocess:
    """A normalization, `(x * scale - mean) / std` per channel for x in 0..255, and the image geometry.

    mean and std hold one value, or one per channel in the order of the fed channels. They are in the units of the
    preset: 0..255 for `raw` and `caffe` (scale 1), 0..1 for the others (scale 1/255). order: "RGB" or "BGR".
    resize: length of the shorter side before cropping. crop: (height, width). None for either: derived from the
    model (see `geometry`). fit: one of FITS.
    """

    name: str
    order: str
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | None = None
    crop: tuple[int, int] | None = None
    fit: str = "crop"

    @staticmethod
    def named(
        name: str,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        resize: int | None = None,
        crop: int | tuple[int, int] | None = None,
        bgr: bool | None = None,
        fit: str = "crop",
    ) -> Preprocess:
        """A preset with some parts replaced. Raises DataError for an unknown name or invalid numbers.

        The other channel order also reverses the preset's mean and std, so that each colour keeps its values. A
        mean or std given here is in the order of the fed channels.
        """
        if name not in PRESETS:
            raise DataError(f"unknown preset '{name}'{nearest(name, tuple(PRESETS))}; choose from {', '.join(PRESETS)}")
        preset = PRESETS[name]
        order = preset.order if bgr is None else ("BGR" if bgr else "RGB")
        turn = slice(None) if order == preset.order else slice(None, None, -1)
        chosen_mean = preset.mean[turn] if mean is None else _numbers("mean", mean)
        chosen_std = preset.std[turn] if std is None else _numbers("std", std)
        if min(chosen_std) <= 0:
            raise DataError(f"std must be above 0, got {_list(chosen_std)}")
        size = (crop, crop) if isinstance(crop, int) else crop
        if resize is not None and resize < 1:
            raise DataError(f"resize must be at least 1 pixel, got {resize}")
        if size is not None and min(size) < 1:
            raise DataError(f"crop must be at least 1 pixel, got {size[0]}×{size[1]}")
        if fit not in FITS:
            raise DataError(f"unknown fit '{fit}'; choose from {', '.join(FITS)}")
        if fit != "crop" and resize is not None:
            raise DataError(f"resize applies before a crop, but {fit} scales directly to the model's size; leave out resize or {fit}")
        return Preprocess(name, order, preset.scale, chosen_mean, chosen_std, resize, size, fit)

    @property
    def plain(self) -> bool:
        """True if the values do not change (the order of channels may)."""
        return self.scale == 1 and set(self.mean) == {0.0} and set(self.std) == {1.0}

    def formula(self) -> str:
        """The normalization as the user would write it, `(x/255 - [..]) / [..], RGB`."""
        if self.plain:
            return f"x in 0..255, {self.order}"
        x = "x" if self.scale == 1 else "x/255"
        centred = x if set(self.mean) == {0.0} else f"({x} - {_list(self.mean)})"
        scaled = centred if set(self.std) == {1.0} else f"{centred} / {_list(self.std)}"
        return f"{scaled}, {self.order}"


# ImageNet's channel means and deviations, which nearly all published classifiers use.
PRESETS = {
    "imagenet": Preprocess("imagenet", "RGB", 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "unit": Preprocess("unit", "RGB", 1 / 255, (0.0,), (1.0,)),
    "symmetric": Preprocess("symmetric", "RGB", 1 / 255, (0.5,), (0.5,)),
    "caffe": Preprocess("caffe", "BGR", 1.0, (103.939, 116.779, 123.68), (1.0,)),
    "raw": Preprocess("raw", "RGB", 1.0, (0.0,), (1.0,)),
}


@dataclass(frozen=True)
class Encoder:
    """A preset for one input, as a table with 256 entries per channel in the input's dtype.

    The table is exact (rounded once, from float64) and needs no float copy of the pixels.
    """

    table: NDArray[np.generic]
    order: tuple[int, ...]
    channel_axis: int | None

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.generic]:
        """Convert uint8 pixels to the input's dtype; the shape stays the same."""
        if self.channel_axis is None:
            return np.take(self.table[0], pixels)
        source = np.moveaxis(pixels, self.channel_axis, 0)
        encoded = np.empty(pixels.shape, dtype=self.table.dtype)
        target = np.moveaxis(encoded, self.channel_axis, 0)
        for channel, origin in enumerate(self.order):
            target[channel] = self.table[channel][source[origin]]
        return encoded


def default_preprocess(spec: InputSpec, layout: ImageLayout | None) -> tuple[Preprocess, str | None]:
    """The default preset for bytes, and a note about it if needed."""
    if not is_float(spec.dtype):
        return PRESETS["raw"], None
    name = "imagenet" if layout is not None and layout.channels == 3 else "unit"
    preset = PRESETS[name]
    return preset, (
        f"no --preprocess given: bytes are fed to '{spec.name}' as '{name}', {preset.formula()}; "
        f"if the model was trained differently, choose from {', '.join(PRESETS)}; for detectors 'onnxprune help tasks' "
        "lists what exporters expect"
    )


def make_encoder(preprocess: Preprocess, spec: InputSpec, layout: ImageLayout | None) -> Encoder:
    """The table that applies `preprocess` to this input. Raises DataError if they do not fit together."""
    if not is_float(spec.dtype):
        if not is_integer(spec.dtype) or integer_range(spec.dtype)[1] < 255:
            raise DataError(f"input '{spec.name}' takes {spec.dtype.name}, which cannot hold bytes; give {spec.dtype.name} arrays")
        if not preprocess.plain:
            raise DataError(
                f"input '{spec.name}' takes {spec.dtype.name}, but preset '{preprocess.name}' makes "
                f"fractions, {preprocess.formula()}; use --preprocess raw"
            )
    channels = 1 if layout is None else layout.channels
    for what, values in (("mean", preprocess.mean), ("std", preprocess.std)):
        if len(values) not in (1, channels):
            allowed = "1 channel; give one" if channels == 1 else f"{channels} channels; give 1 or {channels}"
            raise DataError(
                f"the {what} of preset '{preprocess.name}' has {len(values)} values, but input '{spec.name}' has "
                f"{allowed} with --{what}, or another --preprocess"
            )
    mean = np.broadcast_to(np.asarray(preprocess.mean, dtype=np.float64), (channels,))
    std = np.broadcast_to(np.asarray(preprocess.std, dtype=np.float64), (channels,))
    levels = (np.arange(256, dtype=np.float64) * preprocess.scale - mean[:, None]) / std[:, None]
    with np.errstate(over="ignore"):
        table = levels.astype(spec.dtype)
    if not np.isfinite(table.astype(np.float64)).all():
        raise DataError(f"preset '{preprocess.name}' overflows {spec.dtype.name} in '{spec.name}'; check --std")
    swap = preprocess.order == "BGR" and channels >= 3
    order = (2, 1, 0, *range(3, channels)) if swap else tuple(range(channels))
    return Encoder(table, order, None if layout is None else layout.channel_axis)


def _numbers(what: str, value: float | Sequence[float]) -> tuple[float, ...]:
    numbers = tuple(float(v) for v in np.atleast_1d(np.asarray(value, dtype=np.float64)))
    if not numbers or not np.isfinite(numbers).all():
        raise DataError(f"{what} must hold finite numbers, got {value}")
    return numbers


def _list(values: Sequence[float]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else "[" + ", ".join(f"{v:g}" for v in values) + "]"
