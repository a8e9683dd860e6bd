"""``hf:``: data sets of the Hugging Face library, saved on disk so that no network is needed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxprune.calibration import InputSpec, open_dataset
from onnxprune.calibration.hub import HubRef, parse_hub
from onnxprune.errors import DataError

F32 = np.dtype(np.float32)
PICTURE = (InputSpec("input", F32, (None, 3, 16, 16)),)
VECTOR = (InputSpec("x", F32, (None, 4)),)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("hf:mnist", HubRef("mnist", None, None)),
        ("hf:uoft-cs/cifar10:test", HubRef("uoft-cs/cifar10", "test", None)),
        ("hf:org/name:train:photo", HubRef("org/name", "train", "photo")),
        ("hf:/data/saved::x", HubRef("/data/saved", None, "x")),
        ("photos", None),
        ("hf.py:load", None),
    ],
)
def test_parts(text: str, wanted: HubRef | None) -> None:
    assert parse_hub(text) == wanted


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="pip install datasets"):
        open_dataset("hf:mnist", PICTURE, None, 8, 0)
    with pytest.raises(DataError, match="name of the data set is missing"):
        open_dataset("hf:", PICTURE, None, 8, 0)


@pytest.fixture
def saved(tmp_path: Path) -> str:
    """20 labelled pictures and vectors, in two splits."""
    datasets = pytest.importorskip("datasets")
    generator = np.random.default_rng(0)
    pictures = [Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)) for _ in range(20)]
    columns = {
        "photo": pictures,
        "label": list(range(20)),
        "vector": generator.normal(size=(20, 4)).astype(np.float32).tolist(),
    }
    features = datasets.Features(
        photo=datasets.Image(), label=datasets.Value("int64"), vector=datasets.Sequence(datasets.Value("float32"))
    )
    whole = datasets.Dataset.from_dict(columns, features=features)
    parts = datasets.DatasetDict(train=whole.select(range(12)), test=whole.select(range(12, 20)))
    parts.save_to_disk(str(tmp_path / "saved"))
    return f"hf:{tmp_path / 'saved'}"


def test_pictures_and_labels(saved: str) -> None:
    found = open_dataset(f"{saved}:test:photo", PICTURE, None, None, 0)
    assert found.count == 8
    assert found.labels is not None
    assert found.labels.tolist() == list(range(12, 20))
    assert found.fetch([0, 1])["input"].shape == (2, 3, 16, 16)
    assert open_dataset(f"{saved}::photo", PICTURE, None, 5, 0).count == 5


def test_a_column_of_numbers(saved: str) -> None:
    found = open_dataset(f"{saved}:train:vector", VECTOR, None, 6, 0)
    assert found.fetch([0, 5])["x"].shape == (2, 4)


@pytest.mark.parametrize(
    ("end", "specs", "said"),
    [
        (":tset", PICTURE, "no split 'tset'; it has train, test"),
        ("::foto", PICTURE, "no column 'foto'; it has photo, label, vector"),
        ("::vector", VECTOR * 2, "a column feeds a single input"),
        ("", PICTURE, "needs a column 'image'"),
    ],
)
def test_refusals(saved: str, end: str, specs: tuple[InputSpec, ...], said: str) -> None:
    with pytest.raises(DataError, match=said):
        open_dataset(saved + end, specs, None, 4, 0)


def test_a_data_set_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match="cannot load hf:nobody/nothing"):
        open_dataset("hf:nobody/nothing", PICTURE, None, 4, 0)
