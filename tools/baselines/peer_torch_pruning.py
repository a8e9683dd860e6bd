"""Prune with torch-pruning, in the peers' environment: a job as JSON on the command line, models as files.

    python peer_torch_pruning.py '{"model": …, "data": …, "whole": …, "importance": "l2", "global": true, "jobs": […]}'

``data`` is an .npz with model-ready images; ``jobs`` are {"kept", "streams", "file"}.  Each result
is written to its file, the model as it was before the cut to ``whole``; what cannot be reached is not written.
Prints one JSON line: the share of the MACs of each.
"""

from __future__ import annotations

import copy
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
TOLERANCE, PRECISION = 0.01, 1 / 256


def importance(kind: str) -> tp.importance.Importance:
    table = {
        "l2": lambda: tp.importance.GroupMagnitudeImportance(p=2),
        "bn": tp.importance.BNScaleImportance,
        "taylor": tp.importance.GroupTaylorImportance,
        "hessian": tp.importance.GroupHessianImportance,
    }
    return table[kind]()


def gradients(net: Net, images: torch.Tensor, squared: bool) -> None:
    """Gradients of the cross-entropy against the net's own decisions, since no labels are given.

    ``squared``: the sum of each sample's squared gradient stands in ``grad``, as the Hessian importance reads it.
    Its own accumulation keeps the last sample only (it looks up names among parameters), so it is not used.
    """
    with torch.no_grad():
        decided = torch.cat([net(part).argmax(1) for part in images.split(BATCH)])
    size = 1 if squared else BATCH
    total = [torch.zeros_like(p) for p in net.parameters()]
    for part, labels in zip(images.split(size), decided.split(size), strict=True):
        net.zero_grad()
        nn.functional.cross_entropy(net(part), labels, reduction="sum").backward()
        for sum_, parameter in zip(total, net.parameters(), strict=True):
            assert parameter.grad is not None
            sum_ += parameter.grad**2 if squared else parameter.grad
    for sum_, parameter in zip(total, net.parameters(), strict=True):
        parameter.grad = sum_


def prepared(options: dict, model: onnx.ModelProto, images: torch.Tensor) -> Net:
    """The net before any cut, with the gradients that the importance asks for."""
    net = Net(model, options["pad_node"]).eval()
    net(images[:1])
    if options["importance"] in ("taylor", "hessian"):
        gradients(net, images[:GRADIENT_SAMPLES], options["importance"] == "hessian")
    return net


def copied(net: Net) -> Net:
    """A copy with its gradients."""
    found = copy.deepcopy(net)
    for parameter, like in zip(found.parameters(), net.parameters(), strict=True):
        parameter.grad = None if like.grad is None else like.grad.clone()
    return found


def pruned(job: dict, options: dict, before: Net, example: torch.Tensor, low: float, high: float) -> Net:
    """To the ratio ``low``, then group after group toward ``high`` until the MACs are met."""
    net = copied(before)
    found = importance(options["importance"])
    full = net.macs()
    last = list(net.layers.values())[-1]
    ignored = [last] + ([] if job["streams"] else streams(net))
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
    before = prepared(options, model, images)
    full = before.macs()
    shares = []
    known: dict[tuple[bool, float], float] = {}
    for job in options["jobs"]:
        low, high = 0.0, 1.0 - PRECISION
        while high - low > PRECISION:
            middle = (low + high) / 2
            key = (job["streams"], middle)
            if key not in known:
                known[key] = pruned(job, options, before, images[:1], middle, middle).macs() / full
            low, high = (middle, high) if known[key] > job["kept"] else (low, middle)
        net = pruned(job, options, before, images[:1], low, high)
        reached = net.macs() / full
        shares.append(reached)
        if abs(reached - job["kept"]) <= TOLERANCE:
            onnx.save(net.to_onnx(), job["file"])
    print(json.dumps(shares))


if __name__ == "__main__":
    main()
