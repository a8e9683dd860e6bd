"""Interpret an input's shape as an image: find the axes of channels, height and width."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.calibration.dataset import InputSpec

# A smaller side means a signal or a table, not an image.
SMALLEST_SIDE = 8


@dataclass(frozen=True)
class ImageLayout:
    """The layout of an image input.

    channel_axis: -3 (channels first), -1 (channels last) or None (no channel axis, one channel). height, width: None
    if free. batched: False if the input is a single image without a batch axis.
    """

    channel_axis: int | None
    channels: int
    height: int | None
    width: int | None
    batched: bool

    def arrange(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Convert (n, height, width, channels) to the model's layout, with or without a batch axis."""
        if self.channel_axis is None:
            return pixels[..., 0]
        arranged = np.moveaxis(pixels, -1, -3) if self.channel_axis == -3 else pixels
        return arranged if self.batched else arranged[0]


def image_layout(spec: InputSpec) -> ImageLayout | None:
    """The image layout of this input, or None if its shape is no image shape.

    Supported are N×C×H×W and N×H×W×C with 1, 3 or 4 channels, C×H×W and H×W×C with 3 or 4, and N×H×W for grey
    images. If all dimensions of a rank-4 input are free, we assume three channels, channels first.
    """
    shape = spec.shape
    layout: ImageLayout | None = None
    if len(shape) == 4:
        if shape[1] in (1, 3, 4):
            layout = ImageLayout(-3, shape[1], shape[2], shape[3], True)
        elif shape[3] in (1, 3, 4):
            layout = ImageLayout(-1, shape[3], shape[1], shape[2], True)
        elif shape[1] is None:
            layout = ImageLayout(-3, 3, shape[2], shape[3], True)
    elif len(shape) == 3:
        if shape[2] in (3, 4):
            layout = ImageLayout(-1, shape[2], shape[0], shape[1], False)
        elif shape[0] in (3, 4):
            layout = ImageLayout(-3, shape[0], shape[1], shape[2], False)
        elif shape[0] in (None, 1):
            layout = ImageLayout(None, 1, shape[1], shape[2], True)
    if layout is None or min(layout.height or SMALLEST_SIDE, layout.width or SMALLEST_SIDE) < SMALLEST_SIDE:
        return None
    return layout
