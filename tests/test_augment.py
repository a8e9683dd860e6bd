"""Augmented pictures: what each kind changes, and that it changes nothing else."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from onnxprune.calibration.dataset import InputSpec
from onnxprune.errors import OptionError
from onnxprune.options import AUGMENTS

pytest.importorskip("torch")
from onnxprune.tuning.augment import Augment, augment

Array = np.ndarray
COUNT, SIDES = 6, (20, 28)
LAYOUTS = {"NCHW": (COUNT, 3, *SIDES), "NHWC": (COUNT, *SIDES, 3), "NHW": (COUNT, *SIDES)}
KINDS = [",".join(chosen) for size in range(1, len(AUGMENTS) + 1) for chosen in combinations(AUGMENTS, size)]


def spec(layout: str, kind: str) -> InputSpec:
    return InputSpec("x", np.dtype(kind), (None, *LAYOUTS[layout][1:]))


def pictures(layout: str, kind: str) -> Array:
    """Every number of a batch is another one."""
    shape = LAYOUTS[layout]
    numbers = np.arange(np.prod(shape)).reshape(shape)
    return (numbers % 251).astype(kind) if kind == "uint8" else (numbers / numbers.size).astype(kind)


def augmented(kinds: str, layout: str, kind: str, seed: int) -> Array:
    feeds = {"x": pictures(layout, kind)}
    return np.asarray(augment((spec(layout, kind),), kinds)(feeds, np.random.default_rng(seed))["x"])


@pytest.mark.parametrize("kind", ["float32", "uint8"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("kinds", KINDS)
def test_each_kind_keeps_shape_type_and_range_and_repeats_with_its_seed(kinds: str, layout: str, kind: str) -> None:
    before, given = pictures(layout, kind), pictures(layout, kind)
    for seed in range(4):
        after = augmented(kinds, layout, kind, seed)
        assert (after.shape, after.dtype) == (before.shape, before.dtype)
        assert after.min() >= before.min() and after.max() <= before.max()
        np.testing.assert_array_equal(after, augmented(kinds, layout, kind, seed))
    np.testing.assert_array_equal(given, before)
    # Integers cannot be mixed.
    moved = any(not np.array_equal(augmented(kinds, layout, kind, seed), before) for seed in range(8))
    assert moved == (kinds != "mix" or kind == "float32")


@pytest.mark.parametrize("kinds", ["none", "auto"])
def test_what_is_no_picture_and_what_is_switched_off_stays(kinds: str) -> None:
    rows = {"x": np.random.default_rng(0).standard_normal((COUNT, 40)).astype(np.float32)}
    change = augment((InputSpec("x", np.dtype(np.float32), (None, 40)),), kinds)
    np.testing.assert_array_equal(change(rows, np.random.default_rng(1))["x"], rows["x"])
    feeds = {"x": pictures("NCHW", "float32")}
    off = augment((spec("NCHW", "float32"),), "none")
    np.testing.assert_array_equal(off(feeds, np.random.default_rng(1))["x"], feeds["x"])


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_pasted_part_is_one_rectangle_of_one_other_picture(layout: str) -> None:
    before = pictures(layout, "float32")
    channel = 1 if layout == "NCHW" else 3
    parts = []
    for seed in range(20):
        after = augmented("cut", layout, "float32", seed)
        for k in range(COUNT):
            changed = np.moveaxis(after[k] != before[k], channel - 1, 0)
            # All channels of a place come from the same picture.
            assert (changed == changed[0]).all()
            parts.append(float(changed[0].mean()))
            if not changed.any():
                continue
            rows, columns = (np.flatnonzero(changed[0].any(axis=axis)) for axis in (1, 0))
            assert changed[0][rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
            sources = [j for j in range(COUNT) if np.isin(after[k][after[k] != before[k]], before[j]).all()]
            assert len(sources) == 1
    # Areas from a uniform distribution, in half of the batches, from another picture in most.
    assert 0.1 < np.mean(parts) < 0.4
    assert max(parts) > 0.8


@pytest.mark.parametrize("wrong", ["mirrors", "mirror,mixed", "", "mix,,cut"])
def test_an_unknown_kind_is_refused_by_name(wrong: str) -> None:
    with pytest.raises(OptionError, match="augment: unknown kind"):
        augment((spec("NCHW", "float32"),), wrong)


def test_a_second_input_may_say_where_something_is_so_pictures_stay() -> None:
    two = (spec("NCHW", "float32"), InputSpec("boxes", np.dtype(np.float32), (None, 4)))
    assert augment(two, "auto") == Augment(frozenset(AUGMENTS), {})
