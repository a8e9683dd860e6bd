"""Prune, then quantize: int8 by onnxruntime's static quantization, calibrated on the same unlabelled pictures.

python tools/recipes/quantize.py [MODEL.onnx ...]        default: the demo, and the demo at 60 % of its MACs
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from data import DEMO, ROOT, onnxruntime_network, pictures, top1
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

import onnxprune


class Pictures(CalibrationDataReader):
    """256 calibration pictures, 32 at a time."""

    def __init__(self, name: str) -> None:
        self._batches = iter(np.array_split(pictures("calib")[0][:256], 8))
        self._name = name

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}


def quantize(source: Path, target: Path) -> None:
    """int8 weights (one scale per channel) and activations, as QuantizeLinear/DequantizeLinear pairs."""
    name = onnx.load(source).graph.input[0].name
    logging.getLogger().setLevel(logging.ERROR)
    quantize_static(
        source,
        target,
        Pictures(name),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )


def main(models: list[Path]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        if not models:
            small = Path(folder, "demo.pruned.onnx")
            onnx.save(onnxprune.prune(DEMO, ROOT / "models" / "calib.npz", macs=0.6, preprocess="unit").model, small)
            models = [DEMO, small]
        print(f"{'model':24}{'float32':>20}{'int8':>20}")
        for model in models:
            target = Path(folder, f"{model.stem}.int8.onnx")
            quantize(model, target)
            cells = [f"{top1(onnxruntime_network(m)):.1%}, {m.stat().st_size / 1e3:.0f} kB" for m in (model, target)]
            print(f"{model.name:24}{cells[0]:>20}{cells[1]:>20}")
    return 0


if __name__ == "__main__":
    sys.exit(main([Path(argument) for argument in sys.argv[1:]]))
