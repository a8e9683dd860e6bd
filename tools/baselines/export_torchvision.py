"""Export a torchvision model with seeded random weights, in the peers' environment.

python export_torchvision.py resnet18 resnet18.onnx
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

import torch
from export_zoo import import_torchvision

SHAPE = (1, 3, 224, 224)


def main() -> None:
    name, target = sys.argv[1:]
    import_torchvision()
    from torchvision import models

    torch.manual_seed(0)
    model = models.get_model(name, weights=None).eval()
    torch.onnx.export(
        model, (torch.zeros(SHAPE),), target, input_names=["input"], output_names=["output"],
        dynamic_axes={"input": {0: "n"}, "output": {0: "n"}}, opset_version=17, dynamo=False,
    )  # fmt: skip


if __name__ == "__main__":
    main()
