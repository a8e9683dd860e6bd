"""Prune, then OpenVINO: the pruned model is plain ONNX, so OpenVINO reads it as it is.

pip install openvino && python tools/recipes/openvino_run.py MODEL.onnx ...
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import openvino
from data import Network, onnxruntime_network, pictures, top1


def network(model: Path) -> Network:
    """The model compiled for the CPU."""
    compiled = openvino.Core().compile_model(str(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda batch: np.asarray(compiled(batch)[0])


def main(models: list[Path]) -> int:
    batch = pictures("test")[0][:100]
    for model in models:
        run, reference = network(model), onnxruntime_network(model)
        error = float(np.abs(run(batch) - reference(batch)).max())
        print(
            f"{model.name}: top-1 {top1(run):.1%} in OpenVINO {openvino.__version__.split('-')[0]}, "
            f"at most {error:.1e} from onnxruntime"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main([Path(argument) for argument in sys.argv[1:]]))
