"""Every kind of data source gives the same feeds, in the model's layout and dtype, or one clear refusal."""

from __future__ import annotations

import itertools
import zipfile
from pathlib import Path
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
from PIL import Image

from onnxprune.calibration import Dataset, InputSpec, Preprocess, open_dataset
from onnxprune.calibration.preprocess import PRESETS
from onnxprune.errors import DataError

F32 = np.dtype(np.float32)


def spec(*shape: int | None, name: str = "input", dtype: object = F32) -> InputSpec:
    return InputSpec(name, np.dtype(dtype), shape)


def load(source, *specs, preprocess=None, samples=None, seed=0) -> Dataset:
    return open_dataset(source, specs, preprocess, samples, seed)


def pixels(count=6, channels=3, side=32, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, channels, side, side), dtype=np.uint8)


def save_image(path: Path, array: np.ndarray) -> Path:
    """An H×W or H×W×C uint8 array, lossless."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def folder(root: Path, images: np.ndarray) -> Path:
    for row, image in enumerate(images):
        save_image(root / f"{row:03}.png", np.moveaxis(image, 0, -1))
    return root


def everything(dataset: Dataset, size=4) -> dict[str, np.ndarray]:
    parts = list(dataset.batches(size))
    return {s.name: np.concatenate([p[s.name] for p in parts]) for s in dataset.specs}


# ---- one content, every way of giving it ----


def sources(tmp_path: Path, data: np.ndarray) -> dict[str, object]:
    np.save(tmp_path / "a.npy", data)
    np.savez(tmp_path / "stored.npz", input=data)
    np.savez_compressed(tmp_path / "packed.npz", input=data)
    np.savez(tmp_path / "other_name.npz", anything=data)
    np.savez(tmp_path / "fortran.npz", input=np.asfortranarray(data))
    code = "import numpy as np\nfrom pathlib import Path\nA = np.load(Path(__file__).with_name('a.npy'))\n"
    code += "def array():\n    return A\ndef one_by_one():\n    for a in A:\n        yield {'input': a[None]}\n"
    (tmp_path / "mine.py").write_text(code)
    return {
        "npy": tmp_path / "a.npy",
        "npz": str(tmp_path / "stored.npz"),
        "compressed npz": tmp_path / "packed.npz",
        "npz, other name": tmp_path / "other_name.npz",
        "npz, fortran order": tmp_path / "fortran.npz",
        "FILE.py:array": f"{tmp_path}/mine.py:array",
        "FILE.py:generator": f"{tmp_path}/mine.py:one_by_one",
        "array": data,
        "dict": {"input": data},
        "whole feeds": data[:, None],
        "list of dicts": [{"input": a[None]} for a in data],
        "list of dicts without batch axis": [{"input": a} for a in data],
        "list of arrays": list(data),
        "generator": ({"input": a} for a in data),
        "function": lambda: data,
        "function returning a path": lambda: tmp_path / "a.npy",
        "table": table({"input": list(data)}),
    }


def table(columns: dict[str, list]) -> object:
    """The part of a column table that is used: column names, length, rows and columns by index."""

    class Table:
        def __init__(self):
            self.column_names = list(columns)

        def __len__(self):
            return len(next(iter(columns.values())))

        def __getitem__(self, key):
            if isinstance(key, str):
                return columns[key]
            return {name: values[key] for name, values in columns.items()}

    return Table()


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64], ids=lambda k: k.__name__)
def test_all_array_sources_feed_the_same(tmp_path, kind):
    data = pixels().astype(kind)
    reference = None
    for name, source in sources(tmp_path, data).items():
        dataset = load(source, spec(None, 3, 32, 32), preprocess=Preprocess.named("symmetric"))
        fed = everything(dataset)["input"]
        assert fed.dtype == F32 and fed.shape == data.shape, name
        reference = fed if reference is None else reference
        np.testing.assert_array_equal(fed, reference, err_msg=name)
        assert dataset.count == len(data) and dataset.origin.startswith("6 samples"), name
    expected = data / 127.5 - 1 if kind is np.uint8 else data
    np.testing.assert_allclose(reference, expected, atol=1e-6)


def test_images_feed_what_their_pixels_feed(tmp_path):
    data = pixels()
    images = load(folder(tmp_path / "images", data), spec(None, 3, 32, 32))
    arrays = load(data, spec(None, 3, 32, 32))
    np.testing.assert_array_equal(everything(images)["input"], everything(arrays)["input"])
    assert images.origin == f"6 images in {tmp_path / 'images'}"


def test_stored_arrays_stay_on_disk(tmp_path):
    from onnxprune.calibration.arrays import read_npy, read_npz

    np.savez(tmp_path / "a.npz", input=pixels(), empty=np.zeros((0, 3)))
    np.save(tmp_path / "a.npy", pixels())
    assert isinstance(read_npz(tmp_path / "a.npz")["input"], np.memmap)
    assert isinstance(read_npy(tmp_path / "a.npy"), np.memmap)


def test_module_function(tmp_path, monkeypatch):
    (tmp_path / "pack_of_mine").mkdir()
    (tmp_path / "pack_of_mine" / "loader.py").write_text(
        "import numpy as np\ndef feeds():\n    return {'input': np.ones((2, 5), np.float32)}\n"
    )
    monkeypatch.chdir(tmp_path)
    assert load("pack_of_mine.loader:feeds", spec(None, 5)).count == 2


# ---- presets ----

FORMULAS = {
    "imagenet": lambda x: (x / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225]),
    "unit": lambda x: x / 255,
    "symmetric": lambda x: x / 127.5 - 1,
    "caffe": lambda x: x[..., ::-1] - np.array([103.939, 116.779, 123.68]),
    "raw": lambda x: x,
}


@pytest.mark.parametrize(
    ("name", "first", "batched", "dtype"),
    list(itertools.product(FORMULAS, [True, False], [True, False], [F32, np.float16, ml_dtypes.bfloat16])),
)
def test_presets(tmp_path, name, first, batched, dtype):
    data = pixels(2, side=16)
    shape = (3, 16, 16) if first else (16, 16, 3)
    target = spec(*((None,) if batched else ()), *shape, dtype=dtype)
    source = folder(tmp_path, data)
    dataset = load(source, target, preprocess=Preprocess.named(name))
    assert dataset.batch_limit == (None if batched else 1)
    fed = np.stack([dataset.fetch([row])["input"].reshape(shape) for row in range(2)])
    assert fed.dtype == dtype
    expected = FORMULAS[name](np.moveaxis(data, 1, -1).astype(np.float64))
    expected = np.moveaxis(expected, -1, 1) if first else expected
    tolerance = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}[fed.dtype.name]
    np.testing.assert_allclose(fed.astype(np.float64), expected, rtol=tolerance, atol=tolerance)


def test_preset_overrides():
    data = pixels(1)
    x = data.astype(np.float64)

    def fed(preprocess):
        return load(data, spec(1, 3, 32, 32), preprocess=preprocess).fetch([0])["input"]

    np.testing.assert_allclose(fed(Preprocess.named("raw", mean=127, std=128)), (x - 127) / 128, atol=1e-6)
    np.testing.assert_allclose(fed(Preprocess.named("unit", mean=0.5, std=(0.5, 0.25, 1))),
        (x / 255 - 0.5) / np.array([0.5, 0.25, 1])[:, None, None], atol=1e-6)  # fmt: skip
    np.testing.assert_array_equal(fed(Preprocess.named("raw", bgr=True)), x[:, ::-1])
    # Each colour keeps its own mean when a preset's order is turned round.
    np.testing.assert_array_equal(
        fed(Preprocess.named("imagenet", bgr=True)), fed(Preprocess.named("imagenet"))[:, ::-1]
    )
    np.testing.assert_array_equal(fed(Preprocess.named("caffe", bgr=False)), fed(Preprocess.named("caffe"))[:, ::-1])


@pytest.mark.parametrize(
    ("channels", "dtype", "preset", "told"),
    [(3, F32, "imagenet", True), (1, F32, "unit", True), (4, F32, "unit", True), (3, np.uint8, "raw", False)],
)
@pytest.mark.parametrize("kind", ["images", "arrays"])
def test_default_preset(tmp_path, channels, dtype, preset, told, kind):
    data = pixels(2, channels)
    if kind == "images":
        for row, image in enumerate(data):
            save_image(tmp_path / f"{row}.png", np.moveaxis(image, 0, -1).squeeze())
    source = tmp_path if kind == "images" else data
    target = spec(None, channels, 32, 32, dtype=dtype)
    dataset = load(source, target)
    explicit = load(source, target, preprocess=Preprocess.named(preset))
    np.testing.assert_array_equal(everything(dataset)["input"], everything(explicit)["input"])
    assert any(f"as '{preset}'" in note for note in dataset.notes) == told


def test_fed_statistics_are_told():
    data = np.zeros((1, 3, 32, 32), np.uint8)
    data[:, 1] = 255
    data[:, 2, 0] = 51
    notes = load(data, spec(None, 3, 32, 32), preprocess=Preprocess.named("unit")).notes
    assert "float32 1×3×32×32, min/mean/max per channel 0/0/0, 1/1/1, 0/0.00625/0.2" in notes[-1]
    flat = load(np.full((1, 5), 2.0), spec(None, 5)).notes
    assert "constant" in flat[-1]


# ---- pictures ----


def test_resize_covers_then_crops_the_centre(tmp_path):
    # A horizontal ramp: whatever is cropped, columns stay equally spaced and centred on the middle value.
    ramp = np.repeat(np.linspace(0, 255, 512).astype(np.uint8)[None, :], 300, axis=0)
    save_image(tmp_path / "ramp.png", np.stack([ramp] * 3, axis=-1))

    def fed(target, **options):
        return load(tmp_path, target, preprocess=Preprocess.named("raw", **options)).fetch([0])["input"]

    usual = fed(spec(None, 3, 224, 224))
    assert usual.shape == (1, 3, 224, 224)
    # 300 rows become 256, so 224 columns of the result span 224 * 300 / 256 of the 512.
    span = 255 * (224 * 300 / 256) / 512
    assert abs(float(usual[0, 0, 0, -1] - usual[0, 0, 0, 0]) - span) < 2
    assert abs(float(usual.mean()) - 127.5) < 1
    tight = fed(spec(None, 3, 224, 224), resize=224)
    assert abs(float(tight[0, 0, 0, -1] - tight[0, 0, 0, 0]) - 255 * 300 / 512) < 2
    assert fed(spec(None, None, None, 3), crop=(96, 160)).shape == (1, 96, 160, 3)
    assert fed(spec(None, 3, None, None)).shape == (1, 3, 224, 224)
    assert fed(spec(None, 3, 240, 320)).shape == (1, 3, 240, 320)
    assert fed(spec(None, 3, 320, 40)).shape == (1, 3, 320, 40)
    small = fed(spec(None, 1, 32, 32))
    assert abs(float(small[0, 0, 0, -1] - small[0, 0, 0, 0]) - 255 * 300 / 512) < 10
    assert abs(float(small.mean()) - 127.5) < 2


def test_free_size_is_told(tmp_path):
    folder(tmp_path, pixels(1))
    assert any("224×224" in n and "--crop" in n for n in load(tmp_path, spec(None, 3, None, None)).notes)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I"])
def test_every_picture_mode_fits_every_model(tmp_path, mode, channels):
    grey = Image.fromarray(np.full((32, 32), 128, np.uint8))
    if mode.startswith("I"):
        image = Image.fromarray(np.full((32, 32), 128 * 257, np.uint16 if mode == "I;16" else np.int32))
    elif mode == "1":
        image = Image.new("1", (32, 32), 1)
    elif mode == "PA":
        image = Image.new("P", (32, 32), 0)
        image.putpalette([128, 128, 128] + [0] * 765)
        image.info["transparency"] = 3
    else:
        image = grey.convert("RGB").convert(mode) if mode not in ("LA", "P") else grey.convert(mode)
    suffix = "jpg" if mode in ("CMYK", "YCbCr") else "tif" if mode == "I" else "png"
    image.save(tmp_path / f"x.{suffix}")
    fed = load(tmp_path, spec(None, channels, 32, 32, dtype=np.uint8)).fetch([0])["input"]
    assert fed.shape == (1, channels, 32, 32)
    level = 255 if mode == "1" else 128
    assert np.abs(fed[:, :3].astype(int) - level).max() <= 2
    assert channels < 4 or (fed[:, 3] == 255).all()


def test_exif_orientation(tmp_path):
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    fed = load(tmp_path, spec(None, 3, 32, 32), preprocess=Preprocess.named("raw")).fetch([0])["input"][0, 0]
    assert (fed[:, 16:] == 255).all() and (fed[:, :16] == 0).all()


def test_folder_labels_and_order(tmp_path):
    one = pixels(1)[0].transpose(1, 2, 0)
    for path in ("7/b.png", "10/a.PNG", "train/3/x/c.webp", "7/.hidden.png", ".cache/1/a.png", "7/notes.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("txt"):
            (tmp_path / path).write_text("x")
        else:
            save_image(tmp_path / path, one)
    labelled = load(tmp_path, spec(None, 3, 32, 32))
    assert labelled.labels is not None and labelled.labels.tolist() == [10, 7, 3]
    assert labelled.labels.dtype == np.int64
    assert labelled.take([2, 0]).labels.tolist() == [3, 10]
    save_image(tmp_path / "n01440764_tench.png", one)
    mixed = load(tmp_path, spec(None, 3, 32, 32))
    assert mixed.count == 4 and mixed.labels is None
    assert any("n01440764_tench.png" in note for note in mixed.notes)
    single = load(tmp_path / "7" / "b.png", spec(None, 3, 32, 32))
    assert single.count == 1 and single.labels is None


def test_links_to_folders_are_followed_once(tmp_path):
    """As data sets often are laid out: class folders that are links; and links that lead back."""
    stored, root = tmp_path / "stored", tmp_path / "root"
    save_image(stored / "a.png", np.zeros((8, 8), np.uint8))
    save_image(root / "0" / "b.png", np.zeros((8, 8), np.uint8))
    (root / "1").symlink_to(stored)
    (root / "2").symlink_to(stored)
    (root / "0" / "back").symlink_to(root)
    (root / "-").symlink_to(root / "0")
    (root / "3").symlink_to(tmp_path / "gone")
    dataset = load(root, spec(None, 1, 8, 8))
    assert dataset.count == 2
    assert dataset.labels.tolist() == [0, 1]
    alone = tmp_path / "link"
    alone.symlink_to(stored)
    assert load(alone, spec(None, 1, 8, 8)).count == 1


def test_image_table():
    images = [Image.fromarray(a.transpose(1, 2, 0)) for a in pixels(4)]
    dataset = load(table({"image": images, "label": [3, 1, 2, 0]}), spec(None, 3, 32, 32), samples=2, seed=1)
    assert dataset.count == 2 and dataset.labels is not None
    everything_fed = load(pixels(4), spec(None, 3, 32, 32)).fetch([[3, 1, 2, 0].index(k) for k in dataset.labels])
    np.testing.assert_array_equal(everything(dataset)["input"], everything_fed["input"])


# ---- which samples, and how many at a time ----


@pytest.mark.parametrize(("total", "samples"), [(1, 1), (7, 3), (50, 20), (50, None), (5, 9)])
def test_choice_of_samples(total, samples):
    data = np.arange(total, dtype=np.float32)[:, None]
    runs = [everything(load(data, spec(None, 1), samples=samples, seed=s))["input"].ravel() for s in (0, 0, 1)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert len(runs[0]) == min(total, samples or total)
    assert (np.diff(runs[0]) > 0).all()
    if total == 50 and samples == 20:
        assert not np.array_equal(runs[0], runs[2])
    dataset = load(data, spec(None, 1), samples=samples)
    assert ("of" in dataset.origin.split("samples")[0]) == (samples is not None and samples < total)


def test_labels_follow_the_choice(tmp_path):
    data = np.arange(40, dtype=np.float32)[:, None]
    np.savez(tmp_path / "a.npz", input=data, labels=np.arange(40, dtype=np.uint8)[:, None])
    dataset = load(tmp_path / "a.npz", spec(None, 1), samples=11, seed=3)
    assert dataset.labels is not None
    np.testing.assert_array_equal(dataset.labels, everything(dataset)["input"].ravel())
    part = dataset.take([4, 2])
    np.testing.assert_array_equal(part.labels, everything(part)["input"].ravel())
    assert part.take(np.array([1])).fetch([0])["input"].item() == dataset.fetch([2])["input"].item()


@pytest.mark.parametrize("axis", [None, 1, 4])
@pytest.mark.parametrize("kind", ["arrays", "images", "samples", "synthetic"])
def test_batches_respect_the_batch_axis(tmp_path, axis, kind):
    data = pixels(6)
    source = {
        "arrays": data,
        "images": folder(tmp_path, data) if kind == "images" else None,
        "samples": list(data),
        "synthetic": None,
    }[kind]
    dataset = load(source, spec(axis, 3, 32, 32), samples=6)
    assert dataset.batch_limit == axis
    fed = [batch["input"] for batch in dataset.batches(5)]
    assert [len(b) for b in fed] == {None: [5, 1], 1: [1] * 6, 4: [4, 4]}[axis]
    assert [len(r) for r in dataset.rows(5)] == {None: [5, 1], 1: [1] * 6, 4: [4, 2]}[axis]
    singly = np.concatenate([dataset.fetch([row])["input"][:1] for row in range(6)])
    np.testing.assert_array_equal(np.concatenate(fed)[:6], singly)
    if axis == 4:
        np.testing.assert_array_equal(fed[1][2:], fed[1][:2])
    if axis is not None:
        with pytest.raises(DataError, match="one feed of this model takes"):
            dataset.fetch(range(axis + 1))


def test_several_inputs_and_whole_feeds():
    audio, state, rate = (
        spec(None, None, name="x"),
        spec(2, None, 4, name="state"),
        spec(name="sr", dtype=np.int64),
    )
    x, s = np.random.default_rng(0).random((2, 5, 1, 2, 4))[:, :, 0]
    feeds = {"x": x[:, :1, :], "state": np.stack([s, s], axis=2), "sr": np.full(5, 16000)}
    for source in (feeds, [{k: v[row] for k, v in feeds.items()} for row in range(5)]):
        dataset = load(source, audio, state, rate)
        assert dataset.count == 5 and dataset.batch_limit == 1
        fed = dataset.fetch([3])
        assert fed["sr"].shape == () and fed["sr"].dtype == np.int64
        np.testing.assert_array_equal(fed["state"], feeds["state"][3].astype(np.float32))
    # Stacked samples beside whole feeds, and one scalar for all.
    mixed = {"x": x[:, 0, :], "state": feeds["state"], "sr": np.asarray(8000)}
    fed = load(mixed, audio, state, rate).fetch([3])
    assert fed["x"].shape == (1, 4) and fed["sr"] == 8000
    two = load({"a": np.ones((3, 2)), "b": np.ones((3, 7))}, spec(None, 2, name="a"), spec(None, 7, name="b"))
    assert {k: v.shape for k, v in two.fetch([0, 2]).items()} == {"a": (2, 2), "b": (2, 7)}


def test_samples_of_free_size_are_fed_one_at_a_time():
    dataset = load([np.ones((3, n), np.float32) for n in (4, 9)], spec(None, 3, None))
    assert [b["input"].shape for b in dataset.batches(8)] == [(1, 3, 4), (1, 3, 9)]


def test_endless_generator_is_cut():
    dataset = load(({"input": np.full(2, k, np.float32)} for k in itertools.count()), spec(None, 2), samples=3)
    assert everything(dataset)["input"][:, 0].tolist() == [0, 1, 2]
    assert any("first 3 samples" in note for note in dataset.notes)


def test_labels_beside_samples():
    dataset = load([{"input": np.ones(2), "label": k} for k in (5, 6, 7)], spec(None, 2))
    assert dataset.labels is not None and dataset.labels.tolist() == [5, 6, 7]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (np.int64, np.int32),
        (np.uint8, np.int64),
        (np.bool_, np.float32),
        (np.int32, np.float16),
        (np.int64, np.bool_),
        (np.float32, ml_dtypes.bfloat16),
        (np.uint8, ml_dtypes.int4),
        (np.uint8, np.uint8),
        (np.int8, np.float64),
    ],
)
def test_casts(given, wanted):
    data = np.array([[0, 1], [1, 0]], dtype=given)
    fed = load(data, spec(None, 2, dtype=wanted)).fetch([0, 1])["input"]
    assert fed.dtype == wanted
    np.testing.assert_array_equal(fed.astype(np.float64), data.astype(np.float64))


def test_strings_pass():
    fed = load(np.array([["a", "bc"]]), spec(None, 2, dtype=object)).fetch([0])["input"]
    assert fed.dtype == object and fed.tolist() == [["a", "bc"]]


# ---- synthetic ----

SYNTHETIC = [
    ((spec(None, 3, 32, 32),), None, {"input": (2, 3, 32, 32)}),
    ((spec(None, None, None, 3),), None, {"input": (2, 224, 224, 3)}),
    ((spec(None, 3, None, None),), 1, {"input": (2, 3, 48, 48)}),
    ((spec(None, 7, 5, dtype=np.float16),), None, {"input": (2, 7, 5)}),
    (
        (spec(None, 9, dtype=np.int64), spec(None, 9, name="m", dtype=bool)),
        None,
        {"input": (2, 9), "m": (2, 9)},
    ),
    ((spec(3, 16, 16),), 1, {"input": (3, 16, 16)}),
    ((spec(3, 16, 16), spec(3, 5, name="b")), 1, {"input": (3, 16, 16), "b": (3, 5)}),
    ((spec(16, 16, 3),), None, {"input": (1, 16, 3)}),
    ((spec(None, 3, 16, 16, dtype=np.uint8),), None, {"input": (2, 3, 16, 16)}),
    (
        (spec(None, None), spec(2, None, 128, name="s"), spec(name="r", dtype=np.int64)),
        None,
        {"input": (1, 64), "s": (2, 1, 128), "r": ()},
    ),
]


@pytest.mark.parametrize(("specs", "crop", "shapes"), SYNTHETIC, ids=range(len(SYNTHETIC)))
def test_synthetic(specs, crop, shapes):
    preprocess = None if crop is None else Preprocess.named("unit", crop=48 if None in specs[0].shape else None)
    dataset = load(None, *specs, preprocess=preprocess, samples=5)
    assert dataset.count == 5 and dataset.labels is None
    assert "made-up" in dataset.notes[0] and "--data" in dataset.notes[0]
    rows = [1, 4] if dataset.batch_limit != 1 else [4]
    fed = dataset.fetch(rows)
    if specs[0].shape == (16, 16, 3):
        shapes = {"input": (1, 16, 3)} if dataset.batch_limit == 16 else shapes
        assert fed["input"].shape == (16, 16, 3)
    else:
        assert {name: value.shape for name, value in fed.items()} == shapes
    assert all(fed[s.name].dtype == s.dtype for s in specs)
    again = load(None, *specs, preprocess=preprocess, samples=5).fetch(rows[-1:])
    for name, value in fed.items():
        if value.shape and len(value) == len(rows):
            np.testing.assert_array_equal(again[name][-1], value[-1])
    assert load(None, *specs, preprocess=preprocess).count == 128


def test_synthetic_lengths_are_not_zero():
    dataset = load(None, spec(None, 9, 4), spec(None, name="length", dtype=np.int64), samples=16)
    assert dataset.fetch(list(range(16)))["length"].tolist() == [1] * 16


def test_synthetic_pictures_have_unit_variance_and_neighbours_alike():
    fed = everything(load(None, spec(None, 3, 64, 64), samples=40), 40)["input"].astype(np.float64)
    assert abs(fed.mean()) < 0.3 and 0.7 < fed.std() < 1.3
    assert np.corrcoef(fed[..., 1:].ravel(), fed[..., :-1].ravel())[0, 1] > 0.7
    assert np.corrcoef(fed[:, 0].ravel(), fed[:, 2].ravel())[0, 1] > 0.6
    white = everything(load(None, spec(None, 500), samples=20))["input"]
    assert abs(white.mean()) < 0.05 and abs(white.std() - 1) < 0.05


# ---- refusals: one line, naming what is wrong and what to do ----

X = spec(None, 3, 32, 32)
GOOD = pixels(2).astype(np.float32)


def poisoned(value: float) -> np.ndarray:
    array = GOOD.copy()
    array[0, 0, 0, 0] = value
    return array


def complain() -> None:
    raise ValueError("one\n  two")


REFUSALS = {
    "empty path": ("", (X,), "the name of the data is empty; give a folder of images"),
    "function returns functions": (lambda: "loader.py:itself", (X,), "returned 'loader.py:itself', a function"),
    "function returns an empty path": (lambda: "", (X,), "the name of the data is empty"),
    "missing path": ("nowhere/at/all", (X,), "nowhere/at/all does not exist"),
    "missing module": ("no_such_module_here:f", (X,), "cannot import no_such_module_here"),
    "missing file": ("gone.py:f", (X,), "gone.py does not exist"),
    "wrong name": (
        {"inputs": GOOD, "mask": GOOD},
        (spec(None, 3, 32, 32), spec(None, 3, 32, 32, name="mask")),
        "is 'inputs' meant as 'input'",
    ),
    "ambiguous arrays": ({"x": GOOD, "y": GOOD}, (X,), "no array for input 'input'"),
    "channels last": (GOOD.transpose(0, 2, 3, 1), (X,), r"channels last: use array.transpose\(0, 3, 1, 2\)"),
    "channels first": (GOOD, (spec(None, 32, 32, 3),), "channels first"),
    "no sample axis": (GOOD[0], (X,), r"takes \?×3×32×32, got 3×32×32; .*array\[None\]"),
    "wrong size": (GOOD[..., :30], (X,), r"takes \?×3×32×32, got 2×3×32×30; reshape"),
    "wrong whole feed": (GOOD[:, None, :, :30], (X,), "got 1×3×30×32"),
    "wrong rank": (GOOD[:, 0, 0], (X,), "got 2×32"),
    "uneven counts": (
        {"a": np.ones((3, 2)), "b": np.ones((4, 2))},
        (spec(None, 2, name="a"), spec(None, 2, name="b")),
        "have different numbers of samples: 'a' 3, 'b' 4",
    ),
    "no common batch axis": (
        {"a": np.ones((2, 2)), "b": np.ones((2, 2))},
        (spec(None, 2, name="a"), spec(2, 2, name="b")),
        "give complete feeds",
    ),
    "one array, two inputs": (GOOD, (X, spec(None, 2, name="b")), "the model has 2 inputs"),
    "no samples": (GOOD[:0], (X,), "no samples"),
    "empty list": ([], (X,), "no samples"),
    "labels misspelt": ({"x": GOOD, "Label": np.arange(2)}, (X,), r"is 'Label' meant as 'labels'\? name each"),
    "nothing named": ({}, (X,), "the data is empty; name each array"),
    "label count": ({"input": GOOD, "labels": np.arange(3)}, (X,), "3 labels for 2 samples"),
    "label type": (
        {"input": GOOD, "labels": np.ones(2)},
        (X,),
        "'labels' must hold one integer per sample, got float64",
    ),
    "one-hot labels": ({"input": GOOD, "labels": np.eye(2, dtype=int)}, (X,), "one integer per sample"),
    "NaN": (poisoned(np.nan), (X,), "sample 0: the data for input 'input' holds NaN"),
    "infinity": (poisoned(np.inf), (X,), "holds NaN or infinity"),
    "overflow": (poisoned(1e30), (spec(None, 3, 32, 32, dtype=np.float16),), "overflows float16"),
    "floats for integers": (np.ones((2, 2)), (spec(None, 2, dtype=np.int64),), "takes int64, got float64"),
    "integers out of range": (
        np.full((2, 2), 300),
        (spec(None, 2, dtype=np.uint8),),
        r"\(0\.\.255\), got values 300",
    ),
    "no bool": (np.full((2, 2), 2), (spec(None, 2, dtype=bool),), r"bool \(0\.\.1\)"),
    "objects": (np.array([{}, {}]), (spec(None),), "cannot be fed"),
    "ragged": ({"input": [[1, 2], [3]]}, (spec(None, 2),), "is not an array"),
    "not a dict": ([1, 2], (spec(None),), r"expected a dict \{'input': array\}, got int"),
    "item without input": ([{"input": np.ones(2)}, {}], (spec(None, 2),), "sample 1: 'input' is missing"),
    "item of another shape": (
        [np.ones(2), np.ones(3)],
        (spec(None, 2),),
        "sample 1: input 'input' takes 2, got 3",
    ),
    "number": (3, (X,), "the given int is not data"),
    "function raises": (lambda: 1 / 0, (X,), r"raised ZeroDivisionError: division by zero \(test_data.py, line \d+\); fix"),
    "many lines": (complain, (X,), "raised ValueError: one two"),
    "function wants arguments": (lambda x: x, (X,), r"argument: 'x'; give a function without parameters"),
    "function returns nothing": (lambda: None, (X,), "returned NoneType"),
    "generator raises": (lambda: (1 / k for k in (0,)), (X,), "ZeroDivisionError.* while giving its samples"),
    "table without images": (table({"text": ["a"]}), (X,), "needs a column 'image'.*it has text"),
    "strings made up": (None, (spec(None, 2, dtype=object),), "give --data"),
    "no inputs": (GOOD, (), "no inputs"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source, specs, match = REFUSALS[case]
    with pytest.raises(DataError, match=match) as caught:
        everything(load(source, *specs))
    assert "\n" not in str(caught.value)


PRESET_REFUSALS = {
    "unknown": (lambda: Preprocess.named("imagenett"), "did you mean 'imagenet'"),
    "std": (lambda: Preprocess.named("unit", std=0), "std must be above 0"),
    "mean": (lambda: Preprocess.named("unit", mean=float("nan")), "finite"),
    "resize": (lambda: Preprocess.named("unit", resize=0), "at least 1 pixel"),
    "crop": (lambda: Preprocess.named("unit", crop=0), "at least 1 pixel"),
    "three means, one channel": (
        lambda: load(pixels(1, 1), spec(None, 1, 32, 32), preprocess=Preprocess.named("imagenet")),
        "mean of preset 'imagenet' has 3 values, but input 'input' has 1 channel; give one with --mean",
    ),
    "fractions into bytes": (
        lambda: load(pixels(1), spec(None, 3, 32, 32, dtype=np.uint8), preprocess=Preprocess.named("unit")),
        "use --preprocess raw",
    ),
}


@pytest.mark.parametrize("case", PRESET_REFUSALS)
def test_preset_refusals(case):
    attempt, match = PRESET_REFUSALS[case]
    with pytest.raises(DataError, match=match):
        attempt()


def write_text(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def truncated_npz(path: Path) -> str:
    np.savez(path, input=GOOD)
    path.write_bytes(path.read_bytes()[:-200])
    return str(path)


def damaged_npz(path: Path) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("input.npy", b"not an array")
    return str(path)


def pickled_npz(path: Path) -> str:
    np.savez(path, input=np.array([{}], dtype=object))
    return str(path)


def broken_image(root: Path) -> str:
    folder(root, pixels(3))
    (root / "001.png").write_bytes((root / "001.png").read_bytes()[:60])
    return str(root)


def floating_image(root: Path) -> str:
    root.mkdir()
    Image.fromarray(np.zeros((32, 32), np.float32)).save(root / "f.tiff")
    return str(root)


def empty_folder(root: Path) -> str:
    root.mkdir()
    (root / "readme.txt").write_text("x")
    return str(root)


FILE_REFUSALS = {
    "a.npz": (lambda p: write_text(p, "junk"), "cannot read .*a.npz"),
    "b.npz": (truncated_npz, "cannot read .*b.npz"),
    "c.npz": (damaged_npz, "cannot read .*c.npz"),
    "d.npz": (pickled_npz, "cannot read .*d.npz"),
    "a.npy": (lambda p: write_text(p, "junk"), "a.npy is not an .npy file"),
    "a.csv": (lambda p: write_text(p, "1,2"), "unknown kind of data: .*a.csv; give a folder of images"),
    "a.py": (lambda p: write_text(p, ""), "function is missing.*a.py:FUNCTION"),
    "b.py": (
        lambda p: write_text(p, "def feeds(): pass") + ":feds",
        "has no function 'feds'; did you mean 'feeds'",
    ),
    "c.py": (lambda p: write_text(p, "x = = 1") + ":f", "cannot import .*c.py: SyntaxError"),
    "d.py": (lambda p: write_text(p, "import sys\nsys.exit(3)") + ":f", "cannot import .*SystemExit"),
    "e.py": (
        lambda p: write_text(p, "def f():\n    raise KeyError('k')") + ":f",
        r"KeyError: 'k' \(e.py, line 2\)",
    ),
    "folder": (broken_image, "cannot read image .*001.png: .*remove or replace"),
    "floating": (floating_image, "cannot read image .*f.tiff.*8 or 16 bits"),
    "empty": (empty_folder, "no images in .*empty"),
}


@pytest.mark.parametrize("name", FILE_REFUSALS)
def test_file_refusals(name, tmp_path):
    make, match = FILE_REFUSALS[name]
    with pytest.raises(DataError, match=match):
        everything(load(make(tmp_path / name), X))


@pytest.mark.parametrize(
    ("specs", "options", "match"),
    [
        ((X, spec(None, 2, name="scale")), {}, "images feed a single input, but the model has 2: 'input', 'scale'"),
        ((spec(None, 7, 32, 32),), {}, "needs 1, 3 or 4 channels"),
        ((spec(None, 128),), {}, "images cannot feed input 'input' of shape"),
        ((X,), {"crop": 24}, "crop 24×24 does not fit input 'input'"),
        ((X,), {"resize": 24}, "resize 24 is below the crop 32×32"),
        ((spec(None, 3, 32, 32, dtype=np.int8),), {}, "cannot hold bytes"),
    ],
)
def test_images_refuse_other_models(tmp_path, specs, options, match):
    folder(tmp_path, pixels(1))
    with pytest.raises(DataError, match=match):
        load(tmp_path, *specs, preprocess=Preprocess.named("raw", **options))


@pytest.mark.parametrize("samples", [0, -1])
@pytest.mark.parametrize("source", [None, GOOD])
def test_sample_number_must_be_positive(source, samples):
    with pytest.raises(DataError, match="at least 1"):
        load(source, X, samples=samples)


def test_view_refuses_other_positions():
    dataset = load(GOOD, X)
    for indices in ([2], [-1]):
        with pytest.raises(DataError, match=r"0\.\.1"):
            dataset.take(indices)
    with pytest.raises(DataError, match="at least one"):
        next(dataset.batches(0))
    with pytest.raises(DataError, match="at least one"):
        dataset.fetch([])


def test_dictionary_of_tables_is_refused():
    class Tables(dict):
        column_names = SimpleNamespace()

    with pytest.raises(DataError, match="several tables: train, test"):
        load(Tables(train=1, test=2), X)


def test_labels_misspelt_are_told():
    dataset = load({"input": GOOD, "label": np.arange(2), "extra": GOOD}, X)
    assert "ignored, because the model has no such input: label, extra (is 'label' meant as 'labels'?)" in dataset.notes
    assert dataset.labels is None


def test_ignored_arrays_are_told():
    dataset = load({"input": GOOD, "extra": GOOD}, X)
    assert any("extra" in note and "ignored" in note for note in dataset.notes)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint16, bool, ml_dtypes.bfloat16])
def test_arrays_that_are_no_pixels_ignore_the_preset_and_say_so(dtype):
    given = (GOOD > 127).astype(dtype)
    dataset = load(given, X, preprocess=PRESETS["caffe"])
    np.testing.assert_array_equal(dataset.fetch([0, 1])["input"], given.astype(np.float32))
    told = f"--preprocess does not apply to 'input': {np.dtype(dtype).name} data is fed unchanged"
    assert told in dataset.notes


def test_a_preset_is_no_matter_to_token_numbers():
    dataset = load(np.ones((2, 5), dtype=np.int64), spec(None, 5, dtype=np.int64), preprocess=PRESETS["caffe"])
    assert not any("does not apply" in note for note in dataset.notes)
