"""One model through another pruner, as one JSON line; run by ``bench_zoo.py`` with the python that has the peers.

    python tools/zoo_peers.py onnxsim FILE.onnx          # onnxsim.pruning.apply_structured_pruning on the file
    python tools/zoo_peers.py torch-pruning NAME         # torch-pruning on the torch model of export_zoo.py's table

The answer is "unchanged", "changed" (fewer parameters, and it runs with the outputs' shapes as they were and finite
values) or "corrupt" (it does not), with the share of parameters kept.  A crash is an exit code other than 0.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

#: Share of channels to take away: about what leaves 0.6 of the MACs where both sides of a layer are cut.
SPARSITY = 0.225


def onnxsim(path: str) -> dict[str, Any]:
    """What ``apply_structured_pruning`` makes of the file."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnx
    import onnxruntime as ort
    from onnxsim import pruning

    def outputs(model: Any, feeds: Mapping[str, Any]) -> list[Any]:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return list(session.run(None, dict(feeds)))

    def count(model: Any) -> int:
        return sum(int(np.prod(t.dims)) for t in model.graph.initializer)

    model = onnx.load(path)
    pruned = pruning.apply_structured_pruning(model, sparsity=SPARSITY)
    kept = count(pruned) / max(count(model), 1)
    if kept == 1.0:
        return {"status": "unchanged", "params_kept": 1.0}
    stored = {t.name for t in model.graph.initializer}
    feeds = {i.name: _made_up(i) for i in model.graph.input if i.name not in stored}
    return _judged(kept, lambda: outputs(model, feeds), lambda: outputs(pruned, feeds))


def _made_up(value: Any) -> Any:
    import onnx.helper as oh

    kind = value.type.tensor_type
    dtype = oh.tensor_dtype_to_np_dtype(kind.elem_type)
    shape = [d.dim_value or (1 if k == 0 else 64) for k, d in enumerate(kind.shape.dim)]
    if np.issubdtype(dtype, np.floating):
        return np.random.default_rng(0).standard_normal(shape).astype(dtype)
    return np.ones(shape, dtype)


def torch_pruning(name: str) -> dict[str, Any]:
    """What torch-pruning makes of the model, told what its own examples tell it: the last layers, the heads."""
    import torch
    import torch_pruning as tp
    from export_zoo import build, feeds_of, registry

    entry = next(e for e in registry() if e.name == name)
    model = build(entry, "default")
    feeds = tuple(torch.from_numpy(v) for v in feeds_of(entry).values())
    with torch.no_grad():
        before = _flat(model(*feeds))
    whole = sum(p.numel() for p in model.parameters())
    pruner = tp.pruner.BasePruner(
        model,
        feeds,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=SPARSITY,
        ignored_layers=_last_layers(model, feeds),
        num_heads={m.qkv: m.num_heads for m in model.modules() if hasattr(m, "qkv") and hasattr(m, "num_heads")},
    )
    pruner.step()
    kept = sum(p.numel() for p in model.parameters()) / whole
    if kept == 1.0:
        return {"status": "unchanged", "params_kept": 1.0}
    with torch.no_grad():
        return _judged(kept, lambda: before, lambda: _flat(model(*feeds)))


def _flat(found: Any) -> list[Any]:
    return [t.numpy().copy() for t in (found if isinstance(found, tuple | list) else (found,))]


def _last_layers(model: Any, feeds: tuple[Any, ...]) -> list[Any]:
    """Layers with weights whose output's channels are those of a model output: the pruner must be told of them."""
    import torch

    seen: list[tuple[Any, tuple[int, ...]]] = []
    kinds = (torch.nn.Linear, torch.nn.modules.conv._ConvNd)
    hooks = [
        m.register_forward_hook(lambda module, _, out: seen.append((module, tuple(out.shape))))
        for m in model.modules()
        if isinstance(m, kinds)
    ]
    with torch.no_grad():
        shapes = [tuple(t.shape) for t in _flat(model(*feeds))]
    for hook in hooks:
        hook.remove()
    ends = [module for module, shape in seen if shape in shapes]
    return ends or [seen[-1][0]]


def _judged(kept: float, original: Callable[[], list[Any]], pruned: Callable[[], list[Any]]) -> dict[str, Any]:
    before = original()
    try:
        after = pruned()
    except Exception as error:
        return {"status": "corrupt", "params_kept": kept, "why": " ".join(str(error).split())[:200]}
    if [a.shape for a in after] != [b.shape for b in before]:
        return {"status": "corrupt", "params_kept": kept, "why": "an output changed its shape"}
    if not all(np.isfinite(a.astype(np.float64)).all() for a in after):
        return {"status": "corrupt", "params_kept": kept, "why": "an output is not finite"}
    return {"status": "changed", "params_kept": kept}


def main(argv: list[str]) -> int:
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    print(json.dumps({"onnxsim": onnxsim, "torch-pruning": torch_pruning}[argv[0]](argv[1])))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
