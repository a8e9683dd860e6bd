"""What a pruned model must compute, found without onnxprune's own masks: the original, with the cut positions of its
stored tensors set to zero, as the plan lists them.

A channel whose readers hold zeros for it counts for nothing, whatever its makers say.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

# Importing onnxruntime would record events; a user's own choice stays.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort

#: Relative to the largest output; kernels of other sizes add in another order.
TOLERANCE = 2e-3


def differs(original: Path, pruned: Path, plan: Path) -> str:
    """What is wrong with ``pruned``, made without a refit; empty where nothing is, or where this cannot tell."""
    model = onnx.load(original)
    if _constants(model) != _constants(onnx.load(pruned)):
        # A plan lists initializers only.
        return ""
    told = json.loads(plan.read_text())
    zeroed = _zeroed(model, told.get("tensors", []))
    if zeroed is None or sum(len(cut["kept"]) for cut in told["tensors"]) < 2 * len(told["groups"]):
        # A group that is cut in one tensor has no reader with weights: zeros go in, and anything may come out.
        return ""
    for seed in range(2):
        try:
            session = _session(zeroed)
            feeds = _feeds(session, seed)
            wanted = session.run(None, feeds)
        except Exception:
            return ""
        try:
            got = _session(onnx.load(pruned)).run(None, feeds)
        except Exception as error:
            return f"the result does not run: {error}"
        for value, mine, theirs in zip(session.get_outputs(), wanted, got, strict=True):
            if not isinstance(mine, np.ndarray) or mine.dtype.kind != "f" or not np.isfinite(mine).all():
                continue
            scale = max(float(np.abs(mine).max(initial=0)), 1e-6)
            if mine.shape != theirs.shape:
                return f"output {value.name!r} has shape {theirs.shape}, not {mine.shape}"
            error = float(np.abs(mine - theirs).max(initial=0)) / scale
            if not error <= TOLERANCE:
                return f"output {value.name!r} differs by {error:.1e} from the original with its readers zeroed"
    return ""


def _constants(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Shapes of the tensors that nodes hold."""
    return {
        node.output[0]: list(attribute.t.dims)
        for node in model.graph.node
        for attribute in node.attribute
        if attribute.HasField("t") and node.output
    }


def _zeroed(model: onnx.ModelProto, cuts: list[dict]) -> onnx.ModelProto | None:
    names = [cut["name"] for cut in cuts]
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    if not cuts or len(set(names)) < len(names) or not set(names) <= set(stored):
        # Readers that share a tensor keep different parts of it.
        return None
    drawing = any(node.op_type.startswith(("Random", "Multinomial", "Bernoulli")) for node in model.graph.node)
    if drawing:
        return None
    for cut in cuts:
        tensor = stored[cut["name"]]
        array = numpy_helper.to_array(tensor).copy()
        if array.dtype.kind != "f":
            # Zero is another number there.
            return None
        for axis, text in cut["kept"].items():
            gone = np.ones(array.shape[int(axis)], np.bool_)
            for part in text.split(","):
                first, _, last = part.partition("-")
                gone[int(first) : int(last or first) + 1] = False
            array[(slice(None),) * int(axis) + (gone,)] = 0
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _feeds(session: ort.InferenceSession, seed: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    kinds = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
    found = {}
    for value in session.get_inputs():
        shape = [size if isinstance(size, int) and size > 0 else 2 for size in value.shape]
        found[value.name] = draw.standard_normal(shape).astype(kinds[value.type])
    return found
