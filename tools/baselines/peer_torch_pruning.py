"""Prune with torch-pruning, in the peers' environment: a job as JSON on the command line, models as files.

    python peer_torch_pruning.py '{"model": …, "data": …, "whole": …, "importance": "l2", "global": true, "jobs": […]}'

``data`` is an .npz with model-ready images; ``jobs`` are {"kept", "streams", "file"}.  Each result
is written to its file, the model as it was before the cut to ``whole``; what cannot be reached is not written.
Prints one JSON line: the share of the MACs of each.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import onnx
import onnxsim
import torch
import torch_pruning as tp
from torch import nn
from torch_net import Net, pads_as_convs

GRADIENT_SAMPLES, BATCH = 128, 32
#: Kept MACs may be this far off; and pruning ratios are searched to this precision.
TOLERANCE, PRECISION = 0.01, 1e-3


def importance(kind: str) -> tp.importance.Importance:
    table = {
        "l2": lambda: tp.importance.GroupMagnitudeImportance(p=2),
        "bn": tp.importance.BNScaleImportance,
        "taylor": tp.importance.GroupTaylorImportance,
        "hessian": tp.importance.GroupHessianImportance,
    }
    return table[kind]()


def gradients(net: Net, images: torch.Tensor, found: tp.importance.Importance) -> None:
    """Gradients of the cross-entropy against the net's own decisions, since no labels are given."""
    with torch.no_grad():
        decided = torch.cat([net(part).argmax(1) for part in images.split(BATCH)])
    if isinstance(found, tp.importance.GroupHessianImportance):
        found.zero_grad()
        for image, label in zip(images, decided, strict=True):
            net.zero_grad()
            nn.functional.cross_entropy(net(image[None]), label[None]).backward()
            found.accumulate_grad(net)
        return
    net.zero_grad()
    for part, labels in zip(images.split(BATCH), decided.split(BATCH), strict=True):
        nn.functional.cross_entropy(net(part), labels, reduction="sum").backward()


def pruned(job: dict, options: dict, model: onnx.ModelProto, images: torch.Tensor, low: float, high: float) -> Net:
    """To the ratio ``low``, then group after group toward ``high`` until the MACs are met."""
    torch.manual_seed(0)
    net = Net(model, options["pad_node"]).eval()
    example = images[:1]
    net(example)
    full = net.macs()
    last = list(net.layers.values())[-1]
    ignored = [last] + ([] if job["streams"] else streams(net))
    found = importance(options["importance"])
    if options["importance"] in ("taylor", "hessian"):
        gradients(net, images[:GRADIENT_SAMPLES], found)
    pruner = tp.pruner.BasePruner(
        net, example, importance=found, global_pruning=options["global"], pruning_ratio=high, ignored_layers=ignored,
        iterative_steps=2, iterative_pruning_ratio_scheduler=lambda ratio, steps: [0.0, low, ratio],
    )  # fmt: skip
    pruner.step()
    for group in pruner.step(interactive=True):
        if net.macs() <= full * (job["kept"] + TOLERANCE / 4):
            break
        group.prune()
    return net


def streams(net: Net) -> list[nn.Module]:
    """Convs whose output channels are tied to another Conv's by an addition."""
    graph = net.model.graph
    maker = {o: k for k, node in enumerate(graph.node) for o in node.output}
    found: set[int] = set()

    def climb(value: str) -> None:
        k = maker.get(value)
        if k is None:
            return
        node = graph.node[k]
        if node.op_type == "Conv" and net.layers[str(k)].groups == 1:
            found.add(k)
            return
        for name in node.input:
            climb(name)

    for node in graph.node:
        if node.op_type == "Add":
            for value in node.input:
                climb(value)
    return [net.layers[str(k)] for k in sorted(found)]


def main() -> None:
    options = json.loads(sys.argv[1])
    torch.set_num_threads(options["threads"])
    model, _ = onnxsim.simplify(onnx.load(options["model"]), skip_fuse_bn=True)
    onnx.save(model, options["whole"])
    model = pads_as_convs(model, options["pad_node"])
    images = torch.from_numpy(np.load(options["data"])["images"])
    whole = Net(model, options["pad_node"]).eval()
    whole(images[:1])
    shares = []
    for job in options["jobs"]:

        def kept(low: float, high: float, job: dict = job) -> float:
            net = pruned(job, options, model, images, low, high)
            return net.macs() / whole.macs()

        low, high = 0.0, 0.95
        while high - low > PRECISION:
            middle = (low + high) / 2
            low, high = (middle, high) if kept(middle, middle) > job["kept"] else (low, middle)
        net = pruned(job, options, model, images, low, high)
        reached = net.macs() / whole.macs()
        shares.append(reached)
        if abs(reached - job["kept"]) <= TOLERANCE:
            onnx.save(net.to_onnx(), job["file"])
    print(json.dumps(shares))


if __name__ == "__main__":
    main()
