"""ONNX element types as torch computes them: half precision in float32."""

from __future__ import annotations

import numpy as np
import onnx
import torch

from onnxprune.tuning.operators.call import Unsupported

Array = np.ndarray
P = onnx.TensorProto
TYPES = {
    P.FLOAT: torch.float32,
    P.FLOAT16: torch.float32,
    P.BFLOAT16: torch.float32,
    P.DOUBLE: torch.float64,
    P.BOOL: torch.bool,
    P.UINT8: torch.uint8,
    P.INT8: torch.int8,
    P.INT16: torch.int16,
    P.UINT16: torch.int32,
    P.INT32: torch.int32,
    P.UINT32: torch.int64,
    P.INT64: torch.int64,
    P.UINT64: torch.int64,
}
_NARROW = {"float16": np.float32, "bfloat16": np.float32, "uint16": np.int32, "uint32": np.int64, "uint64": np.int64}


def torch_type(kind: int) -> torch.dtype:
    """The torch type for an ONNX element type.

    Raises:
        Unsupported: text, complex numbers, and floats of 8 bits or less.
    """
    if kind not in TYPES:
        raise Unsupported(f"values of type {P.DataType.Name(kind)}")
    return TYPES[kind]


def to_torch(array: Array) -> torch.Tensor:
    """A copy of ``array`` as a tensor."""
    name = array.dtype.name
    if name in _NARROW:
        array = array.astype(_NARROW[name])
    elif name in ("int4", "uint4", "int2", "uint2"):
        array = array.astype(np.int8 if name.startswith("i") else np.uint8)
    elif array.dtype.kind not in "fiub":
        raise Unsupported(f"values of type {name}")
    return torch.from_numpy(np.array(array))
