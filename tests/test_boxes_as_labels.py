"""Pictures are letterboxed, stretched or cropped, and their boxes go with them; labels are YOLO's or COCO's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

from onnxprune.calibration.dataset import Dataset, InputSpec
from onnxprune.calibration.open import open_dataset
from onnxprune.calibration.preprocess import Preprocess
from onnxprune.errors import DataError

FLOAT = np.dtype(np.float32)
SPEC = (InputSpec("x", FLOAT, (None, 3, 64, 96)),)
BOX = (20, 10, 60, 50)
#: (width, height) of pictures: as wide as the model's, wider, taller, small, of its size.
SIZES = [(192, 128), (300, 100), (100, 300), (40, 30), (96, 64)]


def picture(path: Path, size: tuple[int, int], box: tuple[float, ...]) -> None:
    """Black, with a white box given in shares of 100."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    left, top, right, bottom = (round(v / 100 * s) for v, s in zip(box, size * 2, strict=True))
    pixels[top:bottom, left:right] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def yolo(box: tuple[float, ...], kind: int = 1) -> str:
    left, top, right, bottom = (v / 100 for v in box)
    return f"{kind} {(left + right) / 2} {(top + bottom) / 2} {right - left} {bottom - top}\n"


def opened(source: Path, fit: str = "crop") -> Dataset:
    return open_dataset(str(source), SPEC, Preprocess.named("unit", fit=fit), None, 0)


@pytest.mark.parametrize("fit", ["crop", "letterbox", "stretch"])
@pytest.mark.parametrize("size", SIZES)
def test_boxes_move_with_the_pixels(tmp_path: Path, fit: str, size: tuple[int, int]) -> None:
    box = (30, 30, 70, 70)
    picture(tmp_path / "a.png", size, box)
    (tmp_path / "a.txt").write_text(yolo(box))
    data = opened(tmp_path, fit)
    fed = data.fetch([0])["x"][0]
    assert fed.shape == (3, 64, 96)
    assert data.boxes_of is not None
    boxes = data.boxes_of(0)
    assert list(boxes.classes) == [1]
    rows, columns = np.nonzero(fed[0] > 0.7)
    white = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    # A pixel of the resized picture may be half white.
    assert np.abs(boxes.boxes[0] - white).max() <= 2.5


def test_a_letterbox_is_grey_around_the_whole_picture(tmp_path: Path) -> None:
    Image.new("RGB", (100, 300), "white").save(tmp_path / "a.png")
    fed = opened(tmp_path, "letterbox").fetch([0])["x"][0]
    assert np.allclose(fed[:, :, :37], 114 / 255) and np.allclose(fed[:, :, 59:], 114 / 255)
    assert np.allclose(fed[:, :, 38:58], 1)
    assert np.allclose(opened(tmp_path, "stretch").fetch([0])["x"], 1)


def test_a_picture_of_the_models_size_is_fed_as_it_is(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for fit in ("letterbox", "stretch"):
        assert np.array_equal(
            opened(tmp_path, fit).fetch([0])["x"][0], (pixels / 255).astype(np.float32).transpose(2, 0, 1)
        )


def test_a_fit_and_a_resize_contradict_each_other() -> None:
    with pytest.raises(DataError, match="scales directly to the model's size"):
        Preprocess.named("unit", resize=80, fit="letterbox")
    with pytest.raises(DataError, match="choose from crop, letterbox, stretch"):
        Preprocess.named("unit", fit="squeeze")


@pytest.mark.parametrize("place", ["beside", "labels"])
def test_yolo_files_lie_beside_or_in_a_folder_of_labels(tmp_path: Path, place: str) -> None:
    for name in ("a", "b"):
        picture(tmp_path / "images" / "val" / f"{name}.png", (96, 64), BOX)
    folder = tmp_path / ("images" if place == "beside" else "labels") / "val"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.txt").write_text(yolo(BOX) + "\n" + yolo((0, 0, 10, 10), 3))
    data = opened(tmp_path / "images", "stretch")
    assert data.boxes_of is not None
    assert [list(data.boxes_of(i).classes) for i in (0, 1)] == [[1, 3], []]
    assert data.take([1, 0]).boxes_of is not None
    assert [len(data.take([1, 0]).boxes_of(i).classes) for i in (0, 1)] == [0, 2]  # type: ignore[misc]
    np.testing.assert_allclose(data.boxes_of(0).boxes[0], np.array(BOX) / 100 * [96, 64, 96, 64])


def test_a_polygon_is_labelled_by_its_box(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", (96, 64), BOX)
    (tmp_path / "a.txt").write_text("2 0.1 0.2 0.5 0.3 0.4 0.9\n")
    data = opened(tmp_path, "stretch")
    assert data.boxes_of is not None
    np.testing.assert_allclose(data.boxes_of(0).boxes, [[9.6, 12.8, 48, 57.6]])


@pytest.mark.parametrize(
    "line", ["0 0.5 0.5 0.1", "cat 0.5 0.5 0.1 0.1", "0.5 0.5 0.5 0.1 0.1", "-1 0 0 1 1", "0 nan 0 1 1"]
)
def test_a_line_that_is_no_box_is_refused_by_its_number(tmp_path: Path, line: str) -> None:
    picture(tmp_path / "a.png", (96, 64), BOX)
    (tmp_path / "a.txt").write_text(f"{yolo(BOX)}{line}\n")
    data = opened(tmp_path)
    assert data.boxes_of is not None
    with pytest.raises(DataError, match=r"a\.txt, line 2: .* is not a box"):
        data.boxes_of(0)


def coco(folder: Path, name: str = "_annotations.coco.json", pictures: str = "") -> Path:
    """Categories 3 and 7; of two pictures one has a box, and a crowd that does not count."""
    for at in (1, 2):
        picture(folder / pictures / f"{at}.png", (96, 64), BOX)
    value = {
        "images": [{"id": at, "file_name": f"{at}.png", "width": 96, "height": 64} for at in (1, 2)],
        "annotations": [
            {"id": 1, "image_id": 2, "category_id": 7, "bbox": [19.2, 6.4, 38.4, 25.6], "iscrowd": 0},
            {"id": 2, "image_id": 2, "category_id": 3, "bbox": [0, 0, 96, 64], "iscrowd": 1},
        ],
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
    }
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


@pytest.mark.parametrize(
    ("name", "pictures", "opens"),
    [
        ("_annotations.coco.json", "", ""),
        ("labels.json", "images", "labels.json"),
        ("annotations/instances_val2017.json", "val2017", "annotations/instances_val2017.json"),
    ],
)
def test_coco_labels_are_read(tmp_path: Path, name: str, pictures: str, opens: str) -> None:
    coco(tmp_path, name, pictures)
    data = opened(tmp_path / opens, "stretch")
    assert data.boxes_of is not None
    assert data.count == 2
    assert len(data.boxes_of(0).classes) == 0
    # Classes are counted in the order of their categories' ids.
    assert list(data.boxes_of(1).classes) == [1]
    np.testing.assert_allclose(data.boxes_of(1).boxes[0], np.array(BOX) / 100 * [96, 64, 96, 64])


def test_coco_labels_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    path = coco(tmp_path)
    coco(tmp_path, "second.json")
    # The pictures serve without labels, and a note says why these are not used.
    several = opened(tmp_path)
    assert several.boxes_of is None and several.count == 2
    assert any("several annotation files" in note and "name one of them" in note for note in several.notes)
    (tmp_path / "1.png").unlink()
    with pytest.raises(DataError, match=r"the images of .*, such as '1\.png'"):
        opened(path)
    path.write_text('{"images": []}')
    with pytest.raises(DataError, match="needs images, annotations with a bbox, and categories"):
        opened(path)


def test_boxes_are_those_of_the_picture_as_it_is_looked_at(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", (64, 96), (30, 30, 70, 60))
    turned = Image.Exif()
    turned[0x0112] = 6
    with Image.open(tmp_path / "a.png") as image:
        # Stored as the camera held it, lying; the tag sets it upright.
        image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.jpg", quality=95, exif=turned)
    (tmp_path / "a.png").unlink()
    (tmp_path / "a.txt").write_text(yolo((30, 30, 70, 60)))
    data = opened(tmp_path, "letterbox")
    assert data.boxes_of is not None
    rows, columns = np.nonzero(data.fetch([0])["x"][0][0] > 0.7)
    white = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert np.abs(data.boxes_of(0).boxes[0] - white).max() <= 3


def test_folders_that_are_classes_stay_so_beside_text_files(tmp_path: Path) -> None:
    for kind in (0, 1):
        picture(tmp_path / str(kind) / "a.png", (96, 64), BOX)
        (tmp_path / str(kind) / "a.txt").write_text("a dog in the snow")
    assert list(opened(tmp_path).labels) == [0, 1]  # type: ignore[arg-type]


# -- sounds -----------------------------------------------------------------------------------------------------


def sound(path: Path, values: np.ndarray, rate: int = 16000) -> None:
    wavfile.write(path, rate, values)


@pytest.mark.parametrize("shape", [(None, 400), (None, 1, 400), (None, 400, 1), (4, 400), (400,)])
@pytest.mark.parametrize("kind", [np.int16, np.uint8, np.int32, np.float32])
def test_sounds_are_cut_into_pieces(tmp_path: Path, shape: tuple[int | None, ...], kind: type) -> None:
    wave = np.sin(np.arange(1000) / 7) * 0.5
    if kind is np.uint8:
        stored = (wave * 127 + 128).astype(np.uint8)
    else:
        stored = wave.astype(np.float32) if kind is np.float32 else (wave * np.iinfo(kind).max).astype(kind)
    sound(tmp_path / "long.wav", np.stack([stored, stored], axis=1))
    sound(tmp_path / "short.wav", stored[:100])
    data = open_dataset(str(tmp_path), (InputSpec("x", FLOAT, shape),), None, None, 0)
    assert data.count == 3
    assert any("16000 Hz" in note for note in data.notes)
    pieces = [data.fetch([i])["x"] for i in range(3)]
    rows = [piece.reshape(-1, 400)[0] for piece in pieces]
    assert [piece.ndim for piece in pieces] == [len(shape)] * 3
    for row, start in zip(rows, (0, 400), strict=False):
        np.testing.assert_allclose(row, wave[start : start + 400], atol=0.02)
    np.testing.assert_allclose(rows[2][:100], wave[:100], atol=0.02)
    assert not rows[2][100:].any()


def test_a_sound_of_free_length_is_one_sample(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav", np.zeros(700, np.float32))
    data = open_dataset(str(tmp_path / "a.wav"), (InputSpec("x", FLOAT, (None, None)),), None, None, 0)
    assert (data.count, data.fetch([0])["x"].shape) == (1, (1, 700))


def test_sounds_that_cannot_be_fed_are_refused(tmp_path: Path) -> None:
    def opens(*shapes: tuple[int | None, ...]) -> None:
        specs = tuple(InputSpec(f"x{i}", FLOAT, shape) for i, shape in enumerate(shapes))
        open_dataset(str(tmp_path), specs, None, None, 0)

    sound(tmp_path / "a.wav", np.zeros(700, np.float32))
    with pytest.raises(DataError, match="sounds feed a single input, but the model has 2"):
        opens((None, 400), (None, 3))
    with pytest.raises(DataError, match="needs floats over one time axis"):
        opens((None, 3, 64, 64))
    sound(tmp_path / "b.wav", np.zeros(700, np.float32), 8000)
    with pytest.raises(DataError, match=r"different rates \(a\.wav 16000 Hz, b\.wav 8000 Hz\)"):
        opens((None, 400))
    (tmp_path / "b.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"cannot read sound .*b\.wav"):
        opens((None, 400))
