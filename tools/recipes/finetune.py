"""Prune, then train on in PyTorch, and come back: the plan cuts the checkpoint, the original teaches it.

    pip install torch onnxscript && python tools/recipes/finetune.py

No labels are used: the loss is the distance to the original's answers on the 512 calibration pictures.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from data import DEMO, ROOT, onnxruntime_network, pictures, top1
from onnx import numpy_helper
from torch.nn import functional as F

import onnxprune

sys.path.insert(0, str(ROOT / "tools"))
from train_demo import DemoNet

KEPT, PASSES, RATE = 0.3, 30, 1e-3


def weights(model: onnx.ModelProto) -> dict[str, torch.Tensor]:
    """The constants by the names of the checkpoint: the exporter stores equal ones once, under one of their names."""
    found = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Identity" and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]].clone()
        elif node.op_type == "BatchNormalization":
            found[node.input[3].replace("running_mean", "bias")] = found[node.input[2]]
    return found


def shrink(network: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Give ``network`` tensors of other sizes, in place; only grouped convolutions also keep a count of channels."""
    for name, tensor in state.items():
        owner, _, own = name.rpartition(".")
        module = network.get_submodule(owner)
        place = module._parameters if own in module._parameters else module._buffers
        place[own] = torch.nn.Parameter(tensor) if own in module._parameters else tensor
        if isinstance(module, torch.nn.Conv2d) and module.groups > 1:
            module.groups = module.weight.shape[0]


def train(student: torch.nn.Module, teacher: torch.nn.Module) -> None:
    """Towards the teacher's answers on the calibration pictures, mirrored every other time."""
    batches = torch.from_numpy(pictures("calib")[0]).split(64)
    optimizer = torch.optim.Adam(student.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, PASSES * len(batches))
    # BatchNormalization keeps the statistics that it has: 512 pictures are few.
    student.eval()
    for step in range(PASSES):
        for batch in batches:
            seen = batch.flip(3) if step % 2 else batch
            with torch.no_grad():
                wanted = teacher(seen)
            optimizer.zero_grad()
            F.mse_loss(student(seen), wanted).backward()
            optimizer.step()
            schedule.step()


def main() -> int:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    result = onnxprune.prune(DEMO, ROOT / "models" / "calib.npz", macs=KEPT, preprocess="unit")
    teacher, student = DemoNet().eval(), DemoNet().eval()
    checkpoint = weights(onnx.load(DEMO))
    checkpoint = {name: checkpoint.get(name, tensor) for name, tensor in teacher.state_dict().items()}
    teacher.load_state_dict(checkpoint)
    state = onnxprune.torch_plan(result.plan, checkpoint)
    shrink(student, state)
    # The pruned model's own weights are refitted, and have the same names and sizes: a better start.
    refitted = weights(result.model)
    shrink(student, {name: tensor for name, tensor in refitted.items() if name in state})

    def answers(batch: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(student(torch.from_numpy(batch)))

    print(f"original {top1(onnxruntime_network(DEMO)):.1%}; at {result.report.macs.ratio:.0%} of the MACs:")
    print(f"pruned and refitted {top1(answers):.1%}")
    train(student, teacher)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "tuned.onnx")
        torch.onnx.export(
            student,
            # Two of them: the exporter takes a batch of one for a constant.
            (torch.zeros(2, 1, 28, 28),),
            str(target),
            dynamo=True,
            dynamic_shapes=({0: "batch"},),
            input_names=["input"],
            verbose=False,
        )
        print(f"trained on for {PASSES} passes, exported again {top1(onnxruntime_network(target)):.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
