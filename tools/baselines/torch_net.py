"""A simplified ONNX classifier as a torch module, and back: for torch-pruning, in the peers' environment only."""

from __future__ import annotations

import math

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import helper as oh
from onnx import numpy_helper
from torch import nn


def pads_as_convs(model: onnx.ModelProto, stem: str) -> onnx.ModelProto:
    """Pads of the channel axis written as 1x1 Convs, since torch-pruning cannot follow a pad through channels.

    Exact: the Conv copies every channel to its place and makes zeros elsewhere.  ``stem``: how they are named.
    """
    found = onnx.ModelProto()
    found.CopyFrom(model)
    constants = {t.name: numpy_helper.to_array(t) for t in found.graph.initializer}
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    for k, node in enumerate(found.graph.node):
        if node.op_type != "Pad":
            continue
        pads = constants[node.input[1]].tolist()
        if not pads[1] and not pads[5]:
            continue
        if any(p for i, p in enumerate(pads) if i not in (1, 5)):
            raise ValueError(f"{node.name}: pads channels and other axes at once")
        channels = shapes[node.input[0]][1]
        weight = np.zeros((channels + pads[1] + pads[5], channels, 1, 1), np.float32)
        weight[pads[1] + np.arange(channels), np.arange(channels)] = 1
        name = f"{stem}.{k}"
        found.graph.initializer.append(numpy_helper.from_array(weight, f"{name}.weight"))
        found.graph.node[k].CopyFrom(oh.make_node("Conv", [node.input[0], f"{name}.weight"], list(node.output), name))
    return found


class Net(nn.Module):
    """Runs the graph node by node; Conv, Gemm, MatMul and BatchNormalization are torch modules of their own.

    ``uncounted``: nodes whose names begin with it are no MACs.
    """

    def __init__(self, model: onnx.ModelProto, uncounted: str) -> None:
        super().__init__()
        self.model = model
        self.uncounted = uncounted
        self.constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        self.layers = nn.ModuleDict()
        self.positions: dict[str, int] = {}
        for k, node in enumerate(model.graph.node):
            made = self._module(node)
            if made is not None:
                self.layers[str(k)] = made

    def _tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(np.array(self.constants[name], dtype=np.float32))

    def _module(self, node: onnx.NodeProto) -> nn.Module | None:
        own = {a.name: oh.get_attribute_value(a) for a in node.attribute}
        state: dict[str, torch.Tensor] = {}
        made: nn.Module
        if node.op_type == "Conv":
            weight = self._tensor(node.input[1])
            group = own.get("group", 1)
            has_bias = len(node.input) > 2
            made = nn.Conv2d(
                weight.shape[1] * group, weight.shape[0], tuple(weight.shape[2:]),
                tuple(own.get("strides", (1, 1))), 0, tuple(own.get("dilations", (1, 1))), group, has_bias,
            )  # fmt: skip
            state = {"weight": weight, **({"bias": self._tensor(node.input[2])} if has_bias else {})}
        elif node.op_type == "BatchNormalization":
            names = ("weight", "bias", "running_mean", "running_var")
            state = {name: self._tensor(value) for name, value in zip(names, node.input[1:], strict=True)}
            made = nn.BatchNorm2d(len(state["weight"]), eps=own.get("epsilon", 1e-5))
            state["num_batches_tracked"] = torch.tensor(0)
        elif node.op_type in ("Gemm", "MatMul"):
            weight = self._tensor(node.input[1])
            weight = weight if own.get("transB", 0) else weight.T.contiguous()
            has_bias = len(node.input) > 2
            made = nn.Linear(weight.shape[1], weight.shape[0], has_bias)
            state = {"weight": weight, **({"bias": self._tensor(node.input[2])} if has_bias else {})}
        else:
            return None
        made.load_state_dict(state)
        return made

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values: dict[str, torch.Tensor] = {self.model.graph.input[0].name: x}
        for k, node in enumerate(self.model.graph.node):
            if node.op_type == "Constant":
                continue
            own = {a.name: oh.get_attribute_value(a) for a in node.attribute}
            ins = [values[n] for n in node.input if n in values]
            values[node.output[0]] = self._run(k, node, own, ins)
        return values[self.model.graph.output[0].name]

    def _run(self, k: int, node: onnx.NodeProto, own: dict, ins: list[torch.Tensor]) -> torch.Tensor:
        kind, x = node.op_type, ins[0]
        if kind == "Conv":
            y = self.layers[str(k)](_padded(x, own))
            self.positions[str(k)] = math.prod(y.shape[2:])
            return y
        if kind in ("Gemm", "MatMul", "BatchNormalization"):
            self.positions[str(k)] = 1
            return self.layers[str(k)](x)
        if kind == "Relu":
            return F.relu(x)
        if kind == "Clip":
            return torch.clamp(x, *(float(self.constants[n]) for n in node.input[1:3]))
        if kind == "Add":
            return x + (ins[1] if len(ins) > 1 else self._constant(node))
        if kind == "Concat":
            return torch.cat(ins, own["axis"])
        ceil = bool(own.get("ceil_mode"))
        if ceil and (kind != "MaxPool" or any(own.get("pads", ()))):
            raise ValueError(f"{node.name}: the benchmark's torch module knows ceil_mode of unpadded MaxPool only")
        if kind == "MaxPool":
            wide = _padded(x, own, -math.inf)
            return F.max_pool2d(wide, own["kernel_shape"], own.get("strides", (1, 1)), ceil_mode=ceil)
        if kind == "AveragePool":
            return F.avg_pool2d(_padded(x, own), own["kernel_shape"], own.get("strides", (1, 1)))
        if kind == "GlobalAveragePool":
            return F.adaptive_avg_pool2d(x, 1)
        if kind in ("Flatten", "Squeeze"):
            return torch.flatten(x, 1)
        if kind == "Identity":
            return x
        if kind == "Pad":
            pads = self.constants[node.input[1]].tolist()
            return F.pad(x, (pads[3], pads[7], pads[2], pads[6]))
        if kind == "Slice":
            return self._sliced(node, x)
        raise ValueError(f"the benchmark's torch module does not know {kind}")

    def _constant(self, node: onnx.NodeProto) -> torch.Tensor:
        return self._tensor(next(n for n in node.input if n in self.constants))

    def _sliced(self, node: onnx.NodeProto, x: torch.Tensor) -> torch.Tensor:
        starts, ends, axes, steps = (self.constants[n].tolist() for n in node.input[1:5])
        where = [slice(None)] * x.dim()
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            where[axis] = slice(start, min(end, x.shape[axis]), step)
        return x[tuple(where)]

    def macs(self) -> int:
        """Multiply-accumulates per sample at the positions seen by the last forward."""
        total = 0
        for k, layer in self.layers.items():
            if not isinstance(layer, nn.BatchNorm2d) and not self.model.graph.node[int(k)].name.startswith(
                self.uncounted
            ):
                total += layer.weight.numel() * self.positions[k]
        return total

    def to_onnx(self) -> onnx.ModelProto:
        """The graph with the modules' present weights."""
        found = onnx.ModelProto()
        found.CopyFrom(self.model)
        for k, layer in self.layers.items():
            node = found.graph.node[int(k)]
            state = {name: t.detach().numpy() for name, t in layer.state_dict().items()}
            names = ("weight", "bias")
            if isinstance(layer, nn.BatchNorm2d):
                names = ("weight", "bias", "running_mean", "running_var")
            flip = isinstance(layer, nn.Linear) and not any(a.name == "transB" and a.i for a in node.attribute)
            for slot, name in enumerate(names[: len(node.input) - 1], 1):
                array = state[name].T if flip and name == "weight" else state[name]
                # Layers that shared an array need not be cut alike, so each gets its own.
                node.input[slot] = f"{node.input[slot]}.{k}"
                found.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), node.input[slot]))
            for attribute in node.attribute:
                if attribute.name == "group":
                    attribute.i = layer.groups
        read = {name for node in found.graph.node for name in node.input}
        kept = [t for t in found.graph.initializer if t.name in read]
        del found.graph.initializer[:]
        found.graph.initializer.extend(kept)
        del found.graph.value_info[:]
        return found


def _padded(x: torch.Tensor, own: dict, value: float = 0.0) -> torch.Tensor:
    pads = own.get("pads", [0, 0, 0, 0])
    return F.pad(x, (pads[1], pads[3], pads[0], pads[2]), value=value) if any(pads) else x
