"""What the recipes share: the demo's data, and the top-1 of any function from pixels to scores."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

# Before any recipe imports onnxruntime, which would record events; a user's own choice stays.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "models" / "demo.onnx"

#: A batch of pictures, float32 N x 1 x 28 x 28, to scores, N x 10.
Network = Callable[[np.ndarray], np.ndarray]


def pictures(file: str) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of ``models/FILE.npz`` as the network wants them (``--preprocess unit``), and their labels, if any."""
    with np.load(ROOT / "models" / f"{file}.npz") as arrays:
        inputs = arrays["input"].astype(np.float32) / 255
        return inputs, arrays["labels"] if "labels" in arrays else np.zeros(0, dtype=np.int64)


def top1(network: Network) -> float:
    """Share of the 1,000 labelled test pictures that ``network`` gets right."""
    inputs, labels = pictures("test")
    scores = np.concatenate([network(batch) for batch in np.array_split(inputs, 10)])
    return float((scores.argmax(axis=1) == labels).mean())


def onnxruntime_network(model: Path) -> Network:
    """The model in onnxruntime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: np.asarray(session.run(None, {name: batch})[0])
