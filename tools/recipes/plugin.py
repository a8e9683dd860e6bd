"""onnx-graphsurgeon before and after: fold constants and clean up, prune, put a plugin's node behind, save.

python tools/recipes/plugin.py [OUTPUT.onnx]             the demo; nothing but OUTPUT is written
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from data import DEMO, ROOT

import onnxprune


def simplified(source: Path) -> gs.Graph:
    """What exporters leave to compute at run time is computed, what nothing reads is gone."""
    return gs.import_onnx(onnx.load(source)).fold_constants().cleanup().toposort()


def with_plugin(graph: gs.Graph) -> gs.Graph:
    """A node of a runtime's own behind the scores: the best five classes, and how sure they are."""
    scores = graph.outputs[0]
    rows = scores.shape[0]
    best = [gs.Variable("classes", np.int32, (rows, 5)), gs.Variable("confidences", np.float32, (rows, 5))]
    node = gs.Node("BestClasses", "best", {"k": 5}, inputs=[scores], outputs=best, domain="acme.plugins")
    graph.nodes.append(node)
    graph.outputs = best
    return graph


def build(target: Path, samples: int | None = None) -> onnxprune.Result:
    """The demo at 60 % of its MACs with the plugin's node after it, written to ``target``."""
    data = ROOT / "models" / "calib.npz"
    result = onnxprune.prune(simplified(DEMO), data, macs=0.6, preprocess="unit", samples=samples)
    onnx.save(gs.export_onnx(with_plugin(result.graph())), target)
    return result


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(arguments[0]) if arguments else Path(folder, "demo.plugin.onnx")
        print(build(target))
        last = onnx.load(target).graph.node[-1]
        print(f"{target.name}: {last.domain}::{last.op_type} reads {last.input[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
