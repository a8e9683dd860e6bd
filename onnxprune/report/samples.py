"""Held-out images with the results of the original and the pruned model, side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import onnx
from PIL import Image, ImageDraw

from onnxprune.calibration.dataset import Dataset
from onnxprune.calibration.layout import image_layout
from onnxprune.engine.session import Engine, open_session
from onnxprune.result import Shown
from onnxprune.tasks.answers import Answers, answers_of
from onnxprune.tasks.detect.detections import Detections
from onnxprune.tasks.detect.reader import CONFIDENT, Detect
from onnxprune.tasks.segment import Segment
from onnxprune.tasks.task import Reader

Array = np.ndarray
#: Maximum number of samples to search for ones with detections, and the longer side of an image in the report.
LOOKED_AT, SIDE = 16, 320
#: Maximum characters of a class's name on a picture.
NAME = 20
#: Colours of classes, repeating.  Colour-blind readers can tell them apart (Okabe and Ito 2008).
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")


def shown_samples(
    dataset: Dataset, reader: Reader | None, models: tuple[onnx.ModelProto, onnx.ModelProto], engine: Engine, count: int
) -> tuple[Shown, ...]:
    """Up to ``count`` samples on which the original (the first of ``models``) finds something.

    The result is empty for tasks other than detection and segmentation, and for models without an image input.
    Cost: both models run on :data:`LOOKED_AT` samples.
    """
    if count < 1 or not isinstance(reader, Detect | Segment):
        return ()
    some = dataset.take(range(min(dataset.count, LOOKED_AT)))
    names = [output.name for output in models[0].graph.output]
    before, after = (answers_of(open_session(model, engine), some, names) for model in models)
    shown = _boxes(some, reader, before, after) if isinstance(reader, Detect) else _masks(some, reader, before, after)
    return tuple(shown[:count])


def _boxes(dataset: Dataset, reader: Detect, before: Answers, after: Answers) -> list[Shown]:
    shown = []
    for sample, pair in enumerate(zip(reader.detections(before), reader.detections(after), strict=True)):
        first, second = (one.above(CONFIDENT) for one in pair)
        if not len(first):
            continue
        picture = _picture(dataset, sample)
        if picture is None:
            return []
        caption = f"original: {_counted(first)}; pruned: {_counted(second)}"
        shown.append(Shown(caption, _beside([_with_boxes(picture, first, before), _with_boxes(picture, second, after)])))
    return shown


def _counted(detections: Detections) -> str:
    return f"{len(detections)} detection{'' if len(detections) == 1 else 's'} above {CONFIDENT:g}"


def _masks(dataset: Dataset, reader: Segment, before: Answers, after: Answers) -> list[Shown]:
    shown = []
    # The batches of each output are consecutive; only the first output is drawn.
    parts = len(before.counts)
    first, second = (np.concatenate(reader.maps(answers)[:parts]) for answers in (before, after))
    for sample in range(len(first)):
        picture = _picture(dataset, sample)
        if picture is None:
            return []
        if not first[sample].any():
            continue
        both = [_with_mask(picture, _flat(labels[sample])) for labels in (first, second)]
        same = float(np.mean(first[sample] == second[sample]))
        shown.append(Shown(f"original and pruned agree on {same:.1%} of the pixels", _beside(both)))
    return shown


def _flat(labels: Array) -> Array:
    """One map of labels, (height, width)."""
    labels = np.asarray(labels)
    while labels.ndim > 2:
        labels = labels.max(axis=0) if labels.shape[0] <= labels.shape[-1] else labels.max(axis=-1)
    return labels if labels.ndim == 2 else labels.reshape(1, -1)


def _picture(dataset: Dataset, sample: int) -> Image.Image | None:
    """The image input as an RGB picture; None if no input is an image."""
    if dataset.picture is not None:
        pixels = dataset.picture(sample)
        return Image.fromarray(pixels if pixels.shape[-1] > 1 else pixels[..., 0]).convert("RGB")
    for spec in dataset.specs:
        layout = image_layout(spec)
        if layout is None or layout.channels == 2:
            continue
        fed = dataset.fetch([sample])[spec.name].astype(np.float64)
        one = fed[0] if layout.batched else fed
        if layout.channel_axis is not None:
            one = np.moveaxis(one, layout.channel_axis, -1)
        # The values of black and white are unknown, so stretch the range.
        spread = max(float(one.max() - one.min()), 1e-12)
        pixels = np.clip((one - one.min()) / spread * 255, 0, 255).astype(np.uint8)
        pixels = pixels[..., :3] if pixels.ndim == 3 and pixels.shape[-1] >= 3 else pixels.reshape(pixels.shape[:2])
        return Image.fromarray(pixels).convert("RGB")
    return None


def _with_boxes(picture: Image.Image, detections: Detections, answers: Answers) -> Image.Image:
    drawn, factor = _small(picture)
    draw = ImageDraw.Draw(drawn)
    for box, score, kind in zip(detections.boxes * factor, detections.scores, detections.classes, strict=True):
        colour = COLOURS[int(kind) % len(COLOURS)]
        left, top, right, bottom = (float(value) for value in box)
        draw.rectangle(
            (min(left, right), min(top, bottom), max(left, right), max(top, bottom)), outline=colour, width=2
        )
        name = answers.classes.get(int(kind), str(kind))[:NAME]
        # Pillow's built-in font has no other letters.
        text = f"{name} {score:.2f}".encode("ascii", "replace").decode()
        place = (max(left, 0) + 3, max(top, 0) + 1)
        draw.rectangle(draw.textbbox(place, text), fill="black")
        draw.text(place, text, fill=colour)
    return drawn


def _with_mask(picture: Image.Image, labels: Array) -> Image.Image:
    drawn, _ = _small(picture)
    palette = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in COLOURS], dtype=np.uint8)
    colours = palette[(labels.astype(np.int64) - 1) % len(palette)]
    # Class 0 is usually the background, so it stays transparent.
    alpha = np.where(labels > 0, 140, 0).astype(np.uint8)
    layer = Image.fromarray(np.dstack([colours, alpha]))
    drawn.paste(
        layer.resize(drawn.size, Image.Resampling.NEAREST), (0, 0), layer.resize(drawn.size, Image.Resampling.NEAREST)
    )
    return drawn


def _small(picture: Image.Image) -> tuple[Image.Image, float]:
    factor = SIDE / max(picture.size)
    size = (max(round(picture.width * factor), 1), max(round(picture.height * factor), 1))
    return picture.resize(size, Image.Resampling.BILINEAR), factor


def _beside(pictures: Sequence[Image.Image]) -> bytes:
    """JPEG bytes of two pictures of the same size, side by side."""
    width, height = pictures[0].size
    both = Image.new("RGB", (2 * width + 4, height), "white")
    for place, picture in zip((0, width + 4), pictures, strict=True):
        both.paste(picture, (place, 0))
    file = io.BytesIO()
    both.save(file, "JPEG", quality=80)
    return file.getvalue()
