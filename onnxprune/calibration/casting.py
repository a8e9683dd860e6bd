"""The last step before the model: cast an array to the input's dtype, or reject it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnxprune.calibration.dataset import InputSpec, integer_range, is_float, is_integer
from onnxprune.calibration.layout import image_layout
from onnxprune.calibration.preprocess import Encoder, Preprocess, default_preprocess, make_encoder
from onnxprune.errors import DataError


def array_encoder(
    spec: InputSpec, dtype: np.dtype[np.generic], preprocess: Preprocess | None
) -> tuple[Encoder | None, tuple[str, ...]]:
    """The encoder from arrays of this dtype to this input (None: no conversion), and notes for the user.

    Only uint8 arrays are pixels; a preset never changes other arrays.
    """
    if dtype != np.uint8:
        if preprocess is not None and (is_float(dtype) or is_float(spec.dtype)):
            return None, (f"--preprocess does not apply to '{spec.name}': {dtype.name} data is fed unchanged",)
        return None, ()
    layout = image_layout(spec)
    if not is_float(spec.dtype) and (preprocess is None or layout is None):
        return None, ()
    chosen, note = (preprocess, None) if preprocess is not None else default_preprocess(spec, layout)
    return make_encoder(chosen, spec, layout), () if note is None else (note,)


def as_array(value: object, where: str) -> NDArray[np.generic]:
    """A numpy array of numbers, bools or strings; memory maps stay so. Raises DataError for anything else."""
    try:
        array = value if isinstance(value, np.ndarray) else np.asarray(value)
    except Exception as error:
        raise DataError(f"{where}: a {type(value).__name__} is not an array ({error}); give arrays") from error
    # dtypes of ml_dtypes have kind V too, but another type.
    void = issubclass(array.dtype.type, np.void)
    if array.dtype.hasobject or array.dtype.kind in "mMc" or void:
        raise DataError(f"{where}: arrays of {array.dtype} cannot be fed; give numbers, all samples of one shape")
    return array


def to_input(array: NDArray[np.generic], spec: InputSpec, encoder: Encoder | None, where: str) -> NDArray[np.generic]:
    """The array in the input's dtype, contiguous. Raises DataError for NaN or a wrong type or range."""
    if encoder is not None and array.dtype == np.uint8:
        return encoder(np.asarray(array, dtype=np.uint8))
    texts = (array.dtype.kind in "US") != (spec.dtype.kind in "USOT")
    if texts or (is_float(array.dtype) and not is_float(spec.dtype)):
        takes = f"input '{spec.name}' takes {spec.dtype.name}"
        raise DataError(f"{where}: {takes}, got {array.dtype.name}; convert the array")
    if is_float(array.dtype):
        _check_finite(array, spec, where, "holds NaN or infinity; remove such samples")
    if is_float(spec.dtype):
        with np.errstate(over="ignore"):
            cast = np.ascontiguousarray(array.astype(spec.dtype, copy=False))
        _check_finite(cast, spec, where, f"overflows {spec.dtype.name}; scale the data")
        return cast.reshape(array.shape)
    if array.size and (spec.dtype.kind == "b" or (is_integer(spec.dtype) and array.dtype != spec.dtype)):
        low, high = (0, 1) if spec.dtype.kind == "b" else integer_range(spec.dtype)
        if int(array.min()) < low or int(array.max()) > high:
            raise DataError(
                f"{where}: input '{spec.name}' takes {spec.dtype.name} ({low}..{high}), "
                f"got values {array.min()}..{array.max()}; convert the array"
            )
    return np.ascontiguousarray(array.astype(spec.dtype, copy=False)).reshape(array.shape)


def _check_finite(array: NDArray[np.generic], spec: InputSpec, where: str, fault: str) -> None:
    # numpy has no isfinite for bfloat16 and float8.
    plain = array if array.dtype.kind == "f" else array.astype(np.float32)
    if not np.isfinite(plain).all():
        raise DataError(f"{where}: the data for input '{spec.name}' {fault}")
