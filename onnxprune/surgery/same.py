"""Whether two messages or tensors say the same, in whatever form they are stored."""

from __future__ import annotations

import numpy as np
import onnx
from google.protobuf.message import Message  # type: ignore[import-untyped]


def as_bytes(message: Message) -> bytes:
    """The message in its one deterministic form."""
    return bytes(message.SerializeToString(deterministic=True))


def same_tensor(one: onnx.TensorProto, other: onnx.TensorProto) -> bool:
    """Same type, shape and elements; data that onnx cannot decode counts as different."""
    if as_bytes(one) == as_bytes(other):
        return True
    if list(one.dims) != list(other.dims):
        return False
    if one.data_type == other.data_type == onnx.TensorProto.STRING:
        return bool(list(one.string_data) == list(other.string_data))
    try:
        first, second = onnx.numpy_helper.to_array(one), onnx.numpy_helper.to_array(other)
    except Exception:  # data that onnx cannot decode; the original then counts as edited
        return False
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return bool(first.tobytes() == second.tobytes())


def same_dense(sparse: onnx.SparseTensorProto, dense: onnx.TensorProto) -> bool:
    """Whether a sparse tensor, written out, equals a dense one."""
    try:
        values = onnx.numpy_helper.to_array(sparse.values)
        where = onnx.numpy_helper.to_array(sparse.indices)
        full = np.zeros(list(sparse.dims), dtype=values.dtype)
        if where.ndim == 1:
            full.reshape(-1)[where] = values
        else:
            full[tuple(where.T)] = values
        return bool(np.array_equal(full, onnx.numpy_helper.to_array(dense)))
    except Exception:  # malformed indices: take the edit as one
        return False
