"""Prune, then ncnn: pnnx converts the pruned model, ncnn runs it, and both answer as onnxruntime does.

pip install ncnn pnnx && python tools/recipes/ncnn_run.py MODEL.onnx ...
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import ncnn
import numpy as np
from data import Network, onnxruntime_network, pictures, top1


def convert(model: Path, folder: Path) -> tuple[Path, Path]:
    """ncnn's .param and .bin, float32, made in ``folder`` (pnnx writes beside its input)."""
    spec = importlib.util.find_spec("pnnx")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    # The program itself: the package around it imports torch.
    program = Path(spec.submodule_search_locations[0], "pnnx")
    program.chmod(0o755)
    copy = Path(shutil.copy(model, folder / "model.onnx"))
    command = [str(program), str(copy), "inputshape=[1,1,28,28]", "fp16=0"]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    return folder / "model.ncnn.param", folder / "model.ncnn.bin"


def network(param: Path, weights: Path) -> Network:
    """The model in ncnn, one picture at a time."""
    net = ncnn.Net()
    net.opt.use_fp16_arithmetic = net.opt.use_fp16_packed = net.opt.use_fp16_storage = False
    net.opt.num_threads = 1
    net.load_param(str(param))
    net.load_model(str(weights))

    def one(picture: np.ndarray) -> np.ndarray:
        extractor = net.create_extractor()
        extractor.input(net.input_names()[0], ncnn.Mat(np.ascontiguousarray(picture)))
        return np.array(extractor.extract(net.output_names()[0])[1])

    return lambda batch: np.stack([one(picture) for picture in batch])


def main(models: list[Path]) -> int:
    batch = pictures("test")[0][:100]
    for model in models:
        with tempfile.TemporaryDirectory() as folder:
            param, weights = convert(model, Path(folder))
            run, reference = network(param, weights), onnxruntime_network(model)
            error = float(np.abs(run(batch) - reference(batch)).max())
            print(
                f"{model.name}: top-1 {top1(run):.1%} in ncnn {ncnn.__version__}, at most {error:.1e} from "
                f"onnxruntime, {weights.stat().st_size / 1e3:.0f} kB"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main([Path(argument) for argument in sys.argv[1:]]))
