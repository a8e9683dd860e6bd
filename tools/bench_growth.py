"""How the time of an analysis grows with the number of nodes: it must be linear.

    python tools/bench_growth.py                                     # all shapes of graph, 1,000 to 16,000 nodes
    python tools/bench_growth.py chain --counts 1000,2000            # one of them
    python tools/bench_growth.py convs --profile 4000                # where the time goes

Each row is ``inspect`` of one graph in this process, in processor seconds.  ``growth`` is the exponent between a row
and the one before: 1 is linear, 2 quadratic.
"""

from __future__ import annotations

import argparse
import cProfile
import math
import pstats
import sys
import time
from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper as oh
from onnx import numpy_helper

from onnxprune import api

WIDTH = 8


class Sketch:
    """A graph of float tensors under construction."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(oh.make_node(kind, inputs, [name], **attributes))
        return name

    def put(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def conv(self, x: str, size: int = 1, width: int = WIDTH, before: int = WIDTH) -> str:
        weight = np.random.default_rng(len(self.weights)).standard_normal((width, before, size, size)) / before
        return self.op("Conv", x, self.put(weight.astype(np.float32)), pads=[size // 2] * 4)

    def model(self, result: str, backwards: bool) -> onnx.ModelProto:
        ends = [oh.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, WIDTH, 4, 4]) for n in ("x", result)]
        order = self.nodes[::-1] if backwards else self.nodes
        graph = oh.make_graph(order, "growth", ends[:1], ends[1:], self.weights)
        return oh.make_model(graph, opset_imports=[oh.make_opsetid("", 17)], ir_version=8)


def chain(count: int) -> tuple[Sketch, str]:
    """Activations in a row, between two convolutions."""
    s = Sketch()
    y = s.conv("x")
    while len(s.nodes) < count - 1:
        y = s.op(("Relu", "Sigmoid", "Tanh")[len(s.nodes) % 3], y)
    return s, s.conv(y)


def convs(count: int) -> tuple[Sketch, str]:
    """Small convolutions in a row, an activation behind each."""
    s, y = Sketch(), "x"
    while len(s.nodes) < count - 1:
        y = s.op("Relu", s.conv(y))
    return s, s.conv(y)


def residuals(count: int) -> tuple[Sketch, str]:
    """Blocks of two convolutions around which a shortcut leads."""
    s = Sketch()
    y = s.conv("x")
    while len(s.nodes) < count - 4:
        y = s.op("Add", y, s.conv(s.op("Relu", s.conv(y))))
    return s, s.conv(y)


def shuffles(count: int) -> tuple[Sketch, str]:
    """Convolutions with a channel shuffle behind each, whose sizes are asked of the tensor."""
    s, y = Sketch(), "x"
    batch, rest = s.put(np.asarray([0], np.int64)), s.put(np.asarray([2, WIDTH // 2, 4, 4], np.int64))
    back = s.put(np.asarray([1, WIDTH, 4, 4], np.int64))
    while len(s.nodes) < count - 8:
        y = s.conv(y)
        n = s.op("Gather", s.op("Shape", y), batch)
        y = s.op("Reshape", y, s.op("Concat", n, rest, axis=0))
        y = s.op("Reshape", s.op("Transpose", y, perm=[0, 2, 1, 3, 4]), back)
    return s, s.conv(y)


def gates(count: int) -> tuple[Sketch, str]:
    """Convolutions gated by what a chain of Concat, Split and pooling makes of them."""
    s, y = Sketch(), "x"
    while len(s.nodes) < count - 8:
        y = s.conv(y)
        two = s.op("Concat", y, s.op("Neg", y), axis=1)
        g = s.op("Sigmoid", s.op("GlobalAveragePool", s.conv(two, before=2 * WIDTH)))
        y = s.op("Mul", y, g)
    return s, s.conv(y)


SHAPES: dict[str, Callable[[int], tuple[Sketch, str]]] = {
    f.__name__: f for f in (chain, convs, residuals, shuffles, gates)
}


def build(shape: str, count: int, backwards: bool) -> onnx.ModelProto:
    """The graph called ``shape`` with about ``count`` nodes, in topological or in reverse order."""
    sketch, result = SHAPES[shape](count)
    return sketch.model(result, backwards)


def seconds(model: onnx.ModelProto) -> float:
    start = time.process_time()
    api.inspect(model)
    return time.process_time() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", default=list(SHAPES), choices=[*SHAPES, []], metavar="SHAPE")
    parser.add_argument("--counts", default="1000,2000,4000,8000,16000", help="numbers of nodes")
    parser.add_argument(
        "--order", choices=("forward", "reverse", "both"), default="both", help="of the nodes in the file"
    )
    parser.add_argument("--profile", type=int, metavar="COUNT", help="profile one inspect of this many nodes instead")
    options = parser.parse_args()
    orders = {"forward": [False], "reverse": [True], "both": [False, True]}[options.order]
    if options.profile:
        with cProfile.Profile() as profile:
            seconds(build(options.shapes[0], options.profile, orders[0]))
        pstats.Stats(profile, stream=sys.stdout).sort_stats("cumulative").print_stats(45)
        return 0
    print(f"{'shape':<10} {'order':<8} {'nodes':>6} {'seconds':>8} {'growth':>7}")
    for shape in options.shapes:
        for backwards in orders:
            before: tuple[int, float] | None = None
            for count in [int(n) for n in options.counts.split(",")]:
                model = build(shape, count, backwards)
                spent, nodes = seconds(model), len(model.graph.node)
                growth = "" if before is None else f"{math.log(spent / before[1]) / math.log(nodes / before[0]):.2f}"
                order = "reverse" if backwards else "forward"
                print(f"{shape:<10} {order:<8} {nodes:>6} {spent:>8.2f} {growth:>7}", flush=True)
                before = nodes, spent
    return 0


if __name__ == "__main__":
    sys.exit(main())
