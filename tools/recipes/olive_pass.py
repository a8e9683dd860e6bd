"""Prune as a step of an Olive workflow: a pass that Olive runs like its own, here before its quantization.

pip install olive-ai requests onnxruntime && python tools/recipes/olive_pass.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from data import DEMO, ROOT, onnxruntime_network, pictures, top1
from olive.constants import Precision
from olive.data.config import DataConfig
from olive.data.registry import Registry
from olive.hardware.accelerator import DEFAULT_CPU_ACCELERATOR, AcceleratorSpec
from olive.model import ONNXModelHandler
from olive.passes import Pass
from olive.passes.olive_pass import create_pass_from_dict
from olive.passes.onnx.quantization import OnnxStaticQuantization
from olive.passes.pass_config import BasePassConfig, PassConfigParam

import onnxprune


class OnnxPrune(Pass):
    """``data``, ``macs`` and ``preprocess`` as on onnxprune's command line."""

    @classmethod
    def _default_config(cls, accelerator_spec: AcceleratorSpec) -> dict[str, PassConfigParam]:
        return {
            "data": PassConfigParam(type_=str, required=True, description="Anything that --data takes."),
            "macs": PassConfigParam(type_=float, default_value=0.5, description="Share of the MACs to keep."),
            "preprocess": PassConfigParam(type_=str, default_value="unit", description="A preset."),
        }

    def _run_for_config(
        self, model: ONNXModelHandler, config: type[BasePassConfig], output_model_path: str
    ) -> ONNXModelHandler:
        result = onnxprune.prune(model.model_path, config.data, macs=config.macs, preprocess=config.preprocess)
        target = Path(output_model_path).with_suffix(".onnx")
        target.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(result.model, target)
        return ONNXModelHandler(str(target))


class _Pictures:
    """Calibration pictures as Olive wants a data set: one sample without its batch axis, and a label."""

    def __init__(self) -> None:
        self._inputs = pictures("calib")[0][:128]

    def __len__(self) -> int:
        return len(self._inputs)

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], int]:
        return {"input": self._inputs[index]}, 0


@Registry.register_dataset()
def demo_pictures(**_: object) -> _Pictures:
    return _Pictures()


def main() -> int:
    calibration = DataConfig(name="calibration", load_dataset_config={"type": "demo_pictures"})
    steps = (
        create_pass_from_dict(
            OnnxPrune, {"data": str(ROOT / "models" / "calib.npz"), "macs": 0.6}, True, DEFAULT_CPU_ACCELERATOR
        ),
        create_pass_from_dict(
            OnnxStaticQuantization,
            {"data_config": calibration, "precision": Precision.INT8, "quant_format": "QDQ"},
            True,
            DEFAULT_CPU_ACCELERATOR,
        ),
    )
    model = ONNXModelHandler(str(DEMO))
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'original':24}{top1(onnxruntime_network(DEMO)):>7.1%}{DEMO.stat().st_size / 1e3:>8.0f} kB")
        for step in steps:
            name = type(step).__name__
            model = step.run(model, str(Path(folder, name)))
            file = Path(model.model_path)
            print(f"{name:24}{top1(onnxruntime_network(file)):>7.1%}{file.stat().st_size / 1e3:>8.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
