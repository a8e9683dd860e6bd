"""Synthetic inputs for runs without data: good enough to run the model, too poor to measure it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxprune.calibration.dataset import (
    Dataset,
    Feeds,
    InputSpec,
    check_rows,
    fill,
    is_float,
    is_integer,
    shape_text,
    uniform_batch,
)
from onnxprune.calibration.geometry import image_fit
from onnxprune.calibration.layout import ImageLayout, image_layout
from onnxprune.calibration.preprocess import PRESETS, Encoder, Preprocess, make_encoder
from onnxprune.calibration.request import DataRequest
from onnxprune.errors import DataError

#: More samples take longer but reveal nothing more about real data.
DEFAULT_SAMPLES = 128
FREE_SIZE = 64
# Rough mean and deviation of the bytes of everyday photographs.
BYTE_MEAN, BYTE_STD = 120.0, 60.0
NOTICE = (
    "no --data: the run feeds made-up inputs. The pruned model will run, but its accuracy and drop mean nothing, and its "
    "channels suit these inputs only; give --data with about 256 real samples"
)


def open_synthetic(request: DataRequest) -> Dataset:
    """Seeded samples. Sample i does not depend on the batch.

    Floats are standard normal; images have the smooth spectrum of photographs. With a preset, images are made as
    bytes and the preset is applied. Integers are 0 or 1, single numbers 1, bools either. Free dimensions become 64;
    free heights and widths become 224 or the crop. Raises DataError for inputs that cannot be made up.
    """
    specs = request.specs
    chosen = range(DEFAULT_SAMPLES if request.samples is None else request.samples)
    limit = uniform_batch(specs)
    makers = [_Maker(spec, request, position, limit is not None) for position, spec in enumerate(specs)]
    if not all(maker.batched for maker in makers):
        # If one input has no batch axis, every sample is a complete feed.
        makers = [_Maker(spec, request, position, False) for position, spec in enumerate(specs)]
        limit = (1,)
    batch_limit = 1 if limit is None else limit[0]

    def fetch(rows: Sequence[int]) -> Feeds:
        check_rows(rows, batch_limit)
        if batch_limit == 1:
            return {maker.spec.name: maker.make(rows[0]) for maker in makers}
        return {
            maker.spec.name: fill(np.concatenate([maker.make(row) for row in rows]), batch_limit) for maker in makers
        }

    shapes = ", ".join(f"'{m.spec.name}' {shape_text(m.shape)}" for m in makers if m.guessed)
    notes = (NOTICE, f"dynamic dimensions were guessed: {shapes}; --shape sets them") if shapes else (NOTICE,)
    return Dataset(specs, len(chosen), None, f"{len(chosen)} synthetic samples", notes, fetch, batch_limit)


class _Maker:
    """Makes the samples of one input."""

    def __init__(self, spec: InputSpec, request: DataRequest, position: int, batched: bool) -> None:
        if not (is_float(spec.dtype) or is_integer(spec.dtype) or spec.dtype.kind == "b"):
            raise DataError(f"input '{spec.name}' takes {spec.dtype.name}, which cannot be made up; give --data")
        preprocess = request.preprocess
        layout = image_layout(spec)
        # Rank 3 may be a sequence or an image.  Only a preset shows that images are meant.
        picture = layout is not None and (len(spec.shape) == 4 or preprocess is not None)
        self.spec = spec
        self.seed = request.seed
        self.position = position
        self.layout: ImageLayout | None = layout if picture else None
        self.batched = batched and (self.layout is None or self.layout.batched)
        self.encoder = self._encoder(preprocess)
        self.shape = self._shape(preprocess)
        self.guessed = None in spec.shape[1:] or (None in spec.shape and not self.batched)

    def make(self, row: int) -> NDArray[np.generic]:
        """One sample in the input's dtype, with a batch axis of 1 if the inputs share one."""
        rng = np.random.default_rng((self.seed, self.position, row))
        if self.layout is not None and (self.encoder is not None or is_float(self.spec.dtype)):
            return self._picture(rng, self.layout)
        if is_float(self.spec.dtype):
            return np.asarray(rng.standard_normal(self.shape)).astype(self.spec.dtype)
        if self.spec.usual is not None and self.spec.dtype.kind in "iu":
            return np.full(self.shape, self.spec.usual, self.spec.dtype)
        if math.prod(self.shape) == 1:
            # A single number may be the length of a sample, and 0 would make the sample empty.
            return np.ones(self.shape, self.spec.dtype)
        # 0 and 1 are valid masks, flags, and indices into any table with two or more rows.
        return rng.integers(0, 2, self.shape).astype(self.spec.dtype)

    def _picture(self, rng: np.random.Generator, layout: ImageLayout) -> NDArray[np.generic]:
        axis = layout.channel_axis
        channels_first = self.shape if axis != -1 else (*self.shape[:-3], self.shape[-1], *self.shape[-3:-1])
        height, width = channels_first[-2:]
        leading = channels_first[:-2]
        channels = leading[-1] if axis is not None and leading else 1
        grey = smooth_noise(rng, 1, height, width)
        own = smooth_noise(rng, channels, height, width)
        # The channels of photographs are nearly the same image.
        values = (0.9 * grey + np.sqrt(1 - 0.9**2) * own).reshape(1, channels, height, width)
        values = np.broadcast_to(values, (leading[0] if len(leading) == 2 else 1, *values.shape[1:])).reshape(channels_first)
        if axis == -1:
            values = np.moveaxis(values, -3, -1)
        if self.encoder is None:
            return np.ascontiguousarray(values.astype(self.spec.dtype))
        pixels = np.clip(np.rint(BYTE_MEAN + BYTE_STD * values), 0, 255).astype(np.uint8)
        return np.ascontiguousarray(self.encoder(pixels))

    def _encoder(self, preprocess: Preprocess | None) -> Encoder | None:
        if self.layout is None:
            return None
        if preprocess is None:
            return make_encoder(PRESETS["raw"], self.spec, self.layout) if self.spec.dtype == np.uint8 else None
        return make_encoder(preprocess, self.spec, self.layout)

    def _shape(self, preprocess: Preprocess | None) -> tuple[int, ...]:
        shape = list(self.spec.shape)
        if self.batched or (shape and shape[0] is None):
            shape[0] = 1
        elif len(shape) > 1 and shape[1] is None and self.layout is None:
            # Axis 0 is fixed and not common to the inputs, so axis 1 is probably the batch axis.
            shape[1] = 1
        if self.layout is not None:
            fitted, _ = image_fit(self.spec, self.layout, preprocess or PRESETS["raw"])
            first = {-3: -2, -1: -3, None: -2}[self.layout.channel_axis]
            shape[len(shape) + first], shape[len(shape) + first + 1] = fitted.crop
            if self.layout.channel_axis is not None:
                shape[self.layout.channel_axis] = self.layout.channels
        return tuple(FREE_SIZE if size is None else size for size in shape)


def smooth_noise(rng: np.random.Generator, channels: int, height: int, width: int) -> NDArray[np.float64]:
    """Gaussian noise (channels, height, width) whose amplitude falls with 1/frequency, as in photographs.

    It has unit variance over many samples. The mean of a sample varies, like brightness. Cost: one FFT.
    """
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    gain = 1 / np.maximum(frequency, 1 / max(height, width, 2))
    gain /= np.sqrt(np.mean(gain**2))
    white = np.fft.rfft2(rng.standard_normal((channels, height, width)))
    return np.asarray(np.fft.irfft2(white * gain[:, : width // 2 + 1], s=(height, width)), dtype=np.float64)
