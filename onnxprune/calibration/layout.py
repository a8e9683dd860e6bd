"""Reading an input's shape as a picture: where its channels, height and width are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.calibration.dataset import InputSpec

# Thinner than this is a signal or a table, not a picture.
SMALLEST_SIDE = 8


@dataclass(frozen=True)
class Layout:
    """channel_axis: -3 (channels first), -1 (channels last) or None (no such axis, one channel).

    height, width: None where the model leaves them free. batched: False when the input holds exactly one
    picture and has no batch axis.
    """

    channel_axis: int | None
    channels: int
    height: int | None
    width: int | None
    batched: bool

    def arrange(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(n, height, width, channels) as the model has it; without the batch axis where it has none."""
        if self.channel_axis is None:
            return pixels[..., 0]
        arranged = np.moveaxis(pixels, -1, -3) if self.channel_axis == -3 else pixels
        return arranged if self.batched else arranged[0]


def image_layout(spec: InputSpec) -> Layout | None:
    """How pictures are laid out in this input, or None if its shape cannot hold pictures.

    N×C×H×W and N×H×W×C with 1, 3 or 4 channels; C×H×W and H×W×C with 3 or 4; N×H×W for grey pictures. With
    every dimension of a rank-4 input free, three channels first are assumed.
    """
    shape = spec.shape
    layout: Layout | None = None
    if len(shape) == 4:
        if shape[1] in (1, 3, 4):
            layout = Layout(-3, shape[1], shape[2], shape[3], True)
        elif shape[3] in (1, 3, 4):
            layout = Layout(-1, shape[3], shape[1], shape[2], True)
        elif shape[1] is None:
            layout = Layout(-3, 3, shape[2], shape[3], True)
    elif len(shape) == 3:
        if shape[2] in (3, 4):
            layout = Layout(-1, shape[2], shape[0], shape[1], False)
        elif shape[0] in (3, 4):
            layout = Layout(-3, shape[0], shape[1], shape[2], False)
        elif shape[0] in (None, 1):
            layout = Layout(None, 1, shape[1], shape[2], True)
    if layout is None or min(layout.height or SMALLEST_SIDE, layout.width or SMALLEST_SIDE) < SMALLEST_SIDE:
        return None
    return layout
