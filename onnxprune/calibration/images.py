"""Pictures as calibration data: found in a folder, decoded when fetched, fitted to the model."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from onnxprune.calibration.dataset import (
    Dataset,
    Feeds,
    InputSpec,
    check_rows,
    choose,
    counted,
    fill,
    shape_text,
    subset,
)
from onnxprune.calibration.layout import Layout, image_layout
from onnxprune.calibration.preprocess import Preprocess, default_preprocess, make_encoder
from onnxprune.calibration.request import Request
from onnxprune.errors import DataError
from onnxprune.paths import open_ordinary

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff")
DEFAULT_SIDE = 224
# The usual evaluation of classifiers: the crop is 87.5 % of the resized side (224 of 256).
CROP_RATIO = Fraction(7, 8)
# Models of small pictures (32, 64) are trained on whole ones, so nothing is cropped off.
WHOLE_SIDE = 64
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
#: Pixels of a picture at most: a decoder takes up to 8 bytes for each, and several pictures are decoded at once.
MOST_PIXELS = 1 << 26
#: From so many pixels on a JPEG is decoded at a part of its size, never below this side.
LARGE, LARGEST_SIDE = 1 << 25, 2048
DECODERS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class ImageSource:
    """Pictures by position. load(i) decodes one and may raise anything; name(i) is what errors call it."""

    count: int
    load: Callable[[int], Image.Image]
    name: Callable[[int], str]
    labels: NDArray[np.int64] | None
    origin: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Geometry:
    """Scale a picture to cover `box` (height, width) with its shape kept, then crop the centre to `crop`."""

    box: tuple[int, int]
    crop: tuple[int, int]

    def fit(self, image: Image.Image) -> Image.Image:
        """Bilinear with antialiasing. A picture that has the crop's size already is left as it is."""
        height, width = self.crop
        if image.size == (width, height):
            return image
        if self.box[0] * image.width >= self.box[1] * image.height:
            size = (image.width * self.box[0] // image.height, self.box[0])
        else:
            size = (self.box[1], image.height * self.box[1] // image.width)
        if size != image.size:
            image = image.resize(size, Image.Resampling.BILINEAR)
        left, top = round((image.width - width) / 2), round((image.height - height) / 2)
        return image.crop((left, top, left + width, top + height))


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
    shorter = min(crop)
    if preprocess.resize is None:
        box = crop if shorter <= WHOLE_SIDE else (_ceil(crop[0] / CROP_RATIO), _ceil(crop[1] / CROP_RATIO))
    elif preprocess.resize < shorter:
        raise DataError(f"resize {preprocess.resize} is below the crop {shape_text(crop)} of '{spec.name}'; raise it")
    else:
        growth = Fraction(preprocess.resize, shorter)
        box = (_ceil(crop[0] * growth), _ceil(crop[1] * growth))
    return Geometry(box, crop), notes


def open_images(source: ImageSource, request: Request) -> Dataset:
    """Pictures for a model with one picture-shaped input. Raises DataError for other models."""
    specs, preprocess = request.specs, request.preprocess
    if len(specs) != 1:
        names = ", ".join(f"'{spec.name}'" for spec in specs)
        raise DataError(f"images feed one input, the model has {len(specs)}: {names}; give an .npz with all")
    spec = specs[0]
    layout = image_layout(spec)
    if layout is None:
        raise DataError(
            f"images cannot feed input '{spec.name}' of shape {shape_text(spec.shape)}: "
            "it needs 1, 3 or 4 channels, height and width; give .npz or .npy arrays"
        )
    chosen = choose(source.count, request.samples, request.seed)
    applied, default_note = (preprocess, None) if preprocess is not None else default_preprocess(spec, layout)
    shape, shape_notes = geometry(spec, layout, applied)
    encoder = make_encoder(applied, spec, layout)
    limit = spec.shape[0] if layout.batched else 1

    def decode(row: int) -> NDArray[np.uint8]:
        try:
            image = loaded(source.load(row))
            image = shape.fit(to_mode(ImageOps.exif_transpose(image), MODES[layout.channels]))
        except Exception as error:
            # Pillow's own words name the open file, not the path.
            reason = "no known format" if isinstance(error, UnidentifiedImageError) else _reason(error)
            raise DataError(f"cannot read image {source.name(row)}: {reason}; remove or replace it") from error
        return np.asarray(image, dtype=np.uint8).reshape(*shape.crop, layout.channels)

    def fetch(rows: Sequence[int]) -> Feeds:
        check_rows(rows, limit)
        if len(rows) == 1:
            pictures = [decode(rows[0])]
        else:
            with ThreadPoolExecutor(DECODERS) as pool:
                pictures = list(pool.map(decode, rows))
        pixels = layout.arrange(np.stack(pictures))
        return {spec.name: np.ascontiguousarray(encoder(fill(pixels, limit) if layout.batched else pixels))}

    return Dataset(
        specs=specs,
        count=len(chosen),
        labels=None if source.labels is None else source.labels[chosen],
        origin=counted(len(chosen), source.count, source.origin),
        notes=source.notes + shape_notes + (() if default_note is None else (default_note,)),
        fetch=subset(fetch, chosen),
        batch_limit=limit,
    )


def folder_images(root: Path) -> ImageSource:
    """All pictures below a folder, sorted by path; or one picture file.

    A picture's class is the name of the nearest folder, below `root`, that is a whole number. Raises
    DataError for a folder without pictures. Nothing is decoded.
    """
    files = [root] if root.is_file() else _walk(root)
    if not files:
        raise DataError(f"no images in {root}; looked for {', '.join(SUFFIXES)}, sub-folders included")
    parents = [path.relative_to(root).parts[:-1] if path != root else () for path in files]
    classes = [_class(parts) for parts in parents]
    labelled = [c for c in classes if c is not None]
    notes: tuple[str, ...] = ()
    if labelled and len(labelled) < len(files):
        missing = files[classes.index(None)]
        left_out = len(files) - len(labelled)
        notes = (f"no labels: {left_out} images lie in no folder named by a number, such as {missing}",)
    elif not labelled and any(parents):
        notes = ("no labels: sub-folders are not named by class numbers",)

    def load(row: int) -> Image.Image:
        with open_ordinary(files[row]) as file, Image.open(file) as image:
            loaded(image)
            return image

    return ImageSource(
        count=len(files),
        load=load,
        name=lambda row: str(files[row]),
        labels=np.asarray(labelled, dtype=np.int64) if len(labelled) == len(files) else None,
        origin=f"images in {root}",
        notes=notes,
    )


def loaded(image: Image.Image) -> Image.Image:
    """Decode a picture that was opened; large JPEGs at a half, a quarter or an eighth of their size.

    Raises ValueError for one of more pixels than are decoded.
    """
    if image.width * image.height > LARGE and image.format == "JPEG":
        # The decoder's own averaging: it takes a fraction of the time and memory, and no model sees the difference.
        image.draft(None, (LARGEST_SIDE, LARGEST_SIDE))
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(f"{image.width}×{image.height} are more than {MOST_PIXELS:,} pixels; scale it down")
    image.load()
    return image


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """Any picture as 8-bit L, RGB or RGBA. Raises ValueError for floating-point pictures."""
    if image.mode == mode:
        return image
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        # Pillow clips 16-bit pictures to 255 instead of scaling them.
        values = np.asarray(image, dtype=np.int64)
        deep = image.mode.startswith("I;16") or (values.size > 0 and int(values.max()) > 255)
        image = Image.fromarray(np.clip(values // 257 if deep else values, 0, 255).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert(mode)


def _walk(root: Path) -> list[Path]:
    found = []
    top = os.path.realpath(root)
    if _of_the_system(top):
        raise DataError(f"{root} shows the system itself, not files; give a folder of images")
    # A link to where one came from leads to everything that lies beside it.
    seen = {top, *map(str, Path(top).parents)}
    for folder, folders, names in os.walk(root, followlinks=True):
        # Of a folder and a link to it beside it, the folder gives the class.
        paths = sorted((os.path.islink(path), path) for path in (os.path.join(folder, f) for f in folders))
        ours = (path for _, path in paths if not os.path.basename(path).startswith("."))
        folders[:] = [os.path.basename(path) for path in ours if _first(path, seen)]
        # Hidden files are thumbnails and resource forks with the suffix of a picture.
        found += [Path(folder, n) for n in names if not n.startswith(".") and n.lower().endswith(SUFFIXES)]
    return sorted(found, key=lambda path: PurePath(path).as_posix())


def _first(folder: str, seen: set[str]) -> bool:
    """Whether a folder is not among those ``seen``, which it then is: links may lead back, or to one place twice."""
    real = os.path.realpath(folder)
    fresh = real not in seen and not _of_the_system(real)
    seen.add(real)
    return fresh


def _of_the_system(folder: str) -> bool:
    return os.name == "posix" and folder.split("/")[1] in ("proc", "sys", "dev")


def _class(folders: Sequence[str]) -> int | None:
    return next((int(name) for name in reversed(folders) if name.isascii() and name.isdecimal()), None)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _side(own: int | None, asked: int, other: int | None) -> int:
    return own or asked or other or DEFAULT_SIDE


def _ceil(value: Fraction) -> int:
    return -(-value.numerator // value.denominator)
