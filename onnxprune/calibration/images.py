"""Images as calibration data: found in a folder, decoded when fetched, fitted to the model."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from onnxprune.calibration.dataset import (
    Dataset,
    Feeds,
    check_rows,
    choose,
    counted,
    fill,
    shape_text,
    subset,
    subset_of,
)
from onnxprune.calibration.geometry import ImageFit, image_fit
from onnxprune.calibration.kept import kept
from onnxprune.calibration.labelled_boxes import LabelledBoxes, Labelling, coco_file, read_coco, text_labels
from onnxprune.calibration.layout import image_layout
from onnxprune.calibration.preprocess import default_preprocess, make_encoder
from onnxprune.calibration.request import DataRequest
from onnxprune.errors import DataError
from onnxprune.paths import open_ordinary

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
#: Maximum pixels of an image: a decoder takes up to 8 bytes per pixel, and several images are decoded at once.
MAX_PIXELS = 1 << 26
#: A JPEG with more pixels than LARGE is decoded at reduced size, but never below LARGEST_SIDE.
LARGE, LARGEST_SIDE = 1 << 25, 2048
DECODERS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class ImageSource:
    """Images by position. load(i) decodes one and may raise anything; name(i) is its name in errors.

    boxes_of(i) are its labelled boxes and size(i) its (width, height). Both are None if the source has no boxes.
    """

    count: int
    load: Callable[[int], Image.Image]
    name: Callable[[int], str]
    labels: NDArray[np.int64] | None
    origin: str
    notes: tuple[str, ...] = ()
    boxes_of: Callable[[int], LabelledBoxes] | None = None
    size: Callable[[int], tuple[int, int]] | None = None


def open_images(source: ImageSource, request: DataRequest) -> Dataset:
    """Open images for a model with one image input. Raises DataError for other models."""
    specs, preprocess = request.specs, request.preprocess
    if len(specs) != 1:
        names = ", ".join(f"'{spec.name}'" for spec in specs)
        raise DataError(f"images feed a single input, but the model has {len(specs)}: {names}; give an .npz with all inputs")
    spec = specs[0]
    layout = image_layout(spec)
    if layout is None:
        raise DataError(
            f"images cannot feed input '{spec.name}' of shape {shape_text(spec.shape)}: "
            "it needs 1, 3 or 4 channels, height and width; give .npz or .npy arrays"
        )
    chosen = choose(source.count, request.samples, request.seed)
    applied, default_note = (preprocess, None) if preprocess is not None else default_preprocess(spec, layout)
    shape, shape_notes = image_fit(spec, layout, applied)
    encoder = make_encoder(applied, spec, layout)
    limit = spec.shape[0] if layout.batched else 1

    @kept
    def decode(row: int) -> NDArray[np.uint8]:
        try:
            image = loaded(source.load(row))
            image = shape.apply(to_mode(ImageOps.exif_transpose(image), MODES[layout.channels]))
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
        boxes_of=None if source.boxes_of is None else subset_of(_fed_boxes(source, shape), chosen),
        picture=subset_of(decode, chosen),
    )


def _fed_boxes(source: ImageSource, shape: ImageFit) -> Callable[[int], LabelledBoxes]:
    """The boxes of each image in pixels of the fed image, without boxes outside the crop."""

    def boxes_of(row: int) -> LabelledBoxes:
        assert source.boxes_of is not None and source.size is not None
        labelled = source.boxes_of(row)
        width, height = source.size(row)
        boxes = labelled.boxes * [width, height, width, height] if labelled.shares else labelled.boxes
        moved = shape.move(boxes, width, height)
        kept = (moved[:, 2:] - moved[:, :2] > 1).all(axis=1)
        return LabelledBoxes(moved[kept], labelled.classes[kept])

    return boxes_of


def folder_images(root: Path) -> ImageSource:
    """All images below a folder, sorted by path; or one image file.

    The class of an image is the name of its nearest parent folder below `root` that is a whole number. Raises
    DataError for a folder without images. Nothing is decoded.
    """
    unread: tuple[str, ...] = ()
    try:
        coco = coco_file(root) if root.is_dir() else None
        if coco is not None:
            return coco_images(coco)
    except DataError as error:
        # The images are useful even without labels.
        unread = (f"no labels: {error}",)
    files = [root] if root.is_file() else _walk(root)
    if not files:
        raise DataError(f"no images in {root} or its sub-folders; give a folder that holds {', '.join(SUFFIXES)} files")
    parents = [path.relative_to(root).parts[:-1] if path != root else () for path in files]
    classes = [_class(parts) for parts in parents]
    labelled = [c for c in classes if c is not None]
    notes: tuple[str, ...] = ()
    if labelled and len(labelled) < len(files):
        missing = files[classes.index(None)]
        left_out = len(files) - len(labelled)
        notes = (f"no labels: {left_out} images are not in a folder with a class number as its name, such as {missing}",)
    elif not labelled and any(parents):
        notes = ("no labels: the names of sub-folders are not class numbers",)

    labels = np.asarray(labelled, dtype=np.int64) if len(labelled) == len(files) else None
    boxes = text_labels(files)
    return _source(files, f"images in {root}", labels, unread or (notes if boxes is None else ()), boxes)


def coco_images(path: Path) -> ImageSource:
    """The images of a COCO annotation file, with their boxes (see :func:`read_coco`)."""
    files, labelling = read_coco(path)
    return _source(files, f"images of {path}", None, (), labelling)


def _source(
    files: Sequence[Path],
    origin: str,
    labels: NDArray[np.int64] | None,
    notes: tuple[str, ...],
    labelling: Labelling | None,
) -> ImageSource:
    def load(row: int) -> Image.Image:
        with open_ordinary(files[row]) as file, Image.open(file) as image:
            loaded(image)
            return image

    def name(row: int) -> str:
        return str(files[row])

    def size(row: int) -> tuple[int, int]:
        with open_ordinary(files[row]) as file, Image.open(file) as image:
            width, height = image.size
            # A camera rotates an image by a tag.  Boxes refer to the rotated image.
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        return (height, width) if turned else (width, height)

    boxes_of = None if labelling is None else lambda row: labelling(files[row])
    return ImageSource(len(files), load, name, labels, origin, notes, boxes_of, size)


def has_images(root: Path) -> bool:
    return root.is_dir() and bool(_walk(root))


def loaded(image: Image.Image) -> Image.Image:
    """Decode an opened image. Large JPEGs are decoded at a half, a quarter or an eighth of their size.

    Raises ValueError if it has more than MAX_PIXELS pixels.
    """
    if image.width * image.height > LARGE and image.format == "JPEG":
        # The decoder averages pixels, in a fraction of the time and memory.  Models do not notice the difference.
        image.draft(None, (LARGEST_SIDE, LARGEST_SIDE))
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width}×{image.height} is more than {MAX_PIXELS:,} pixels; scale it down")
    image.load()
    return image


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """Convert an image to 8-bit L, RGB or RGBA. Raises ValueError for floating-point images."""
    if image.mode == mode:
        return image
    if image.mode == "F":
        raise ValueError("floating-point pixels have no standard range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        # Pillow clips 16-bit images to 255 instead of scaling them.
        values = np.asarray(image, dtype=np.int64)
        deep = image.mode.startswith("I;16") or (values.size > 0 and int(values.max()) > 255)
        image = Image.fromarray(np.clip(values // 257 if deep else values, 0, 255).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert(mode)


def _walk(root: Path) -> list[Path]:
    files = []
    top = os.path.realpath(root)
    if _of_the_system(top):
        raise DataError(f"{root} is a system folder, not one of files; give a folder of images")
    # A link to a parent folder would lead to everything beside the root.
    seen = {top, *map(str, Path(top).parents)}
    for folder, folders, names in os.walk(root, followlinks=True):
        # Sort real folders before links: the class comes from the name of the real folder.
        paths = sorted((os.path.islink(path), path) for path in (os.path.join(folder, f) for f in folders))
        ours = (path for _, path in paths if not os.path.basename(path).startswith("."))
        folders[:] = [os.path.basename(path) for path in ours if _first(path, seen)]
        # Hidden files with an image suffix are thumbnails and resource forks.
        files += [Path(folder, n) for n in names if not n.startswith(".") and n.lower().endswith(SUFFIXES)]
    return sorted(files, key=lambda path: PurePath(path).as_posix())


def _first(folder: str, seen: set[str]) -> bool:
    """Whether a folder is new; adds it to ``seen``.  Links may lead back, or to the same place twice."""
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
