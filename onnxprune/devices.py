"""Preferred multiples of channels per device, as its documentation states them.

Devices without such a statement are not listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class DeviceTarget:
    """Channel counts should be multiples of ``multiple``.  ``reason`` says why, ``source`` names the document."""

    multiple: int
    reason: str
    source: str


_TENSORRT = "TensorRT C++ API, nvinfer1::TensorFormat"
_HEXAGON = "Qualcomm AI Engine Direct, 80-63442-10, HTP guidelines, number of channels"
_ASCEND = "Huawei, Atlas 500 application developer guide, Operator Usage Suggestions"
_NCNN = "Tencent/ncnn, docs/developer-guide/element-packing.md"
_ONEDNN = "oneDNN developer guide, Understanding Memory Formats"
_MLAS = "onnxruntime, MLAS, MlasNchwcGetBlockSize"

TARGETS: Mapping[str, DeviceTarget] = MappingProxyType(
    {
        "tensorrt-fp16": DeviceTarget(8, "kHWC8 packs 8 channels", _TENSORRT),
        "tensorrt-int8": DeviceTarget(32, "kCHW32 packs 32 channels", _TENSORRT),
        "hexagon": DeviceTarget(32, "channels are rounded up to the next multiple of 32", _HEXAGON),
        "ascend": DeviceTarget(16, "the cube unit multiplies 16 channels", _ASCEND),
        "ascend-int8": DeviceTarget(32, "quantized, the cube unit multiplies 32 channels", _ASCEND),
        "ethos-u": DeviceTarget(16, "NHCWB16 stores bricks of 16 channels", "Arm, Vela compiler, TensorFormat.NHCWB16"),
        "ncnn": DeviceTarget(8, "elements are packed by 4 or 8", _NCNN),
        "openvino": DeviceTarget(16, "nChw16c stores blocks of 16 channels (AVX-512)", _ONEDNN),
        "openvino-avx2": DeviceTarget(8, "nChw8c stores blocks of 8 channels", _ONEDNN),
        "ort-cpu": DeviceTarget(8, "kernels compute blocks of 8 channels", _MLAS),
        "ort-cpu-avx512": DeviceTarget(16, "kernels compute blocks of 16 channels", _MLAS),
        "ti-npu": DeviceTarget(4, "input channels must be a multiple of 4", "TI, NPU Configuration Guidelines, 6.3"),
    }
)
