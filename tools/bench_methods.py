"""The rows of ``bench_accuracy.py``, by name: onnxprune and its ablations, the literature, the peers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import onnx
from baselines import compensate, rank
from baselines.batch_statistics import Statistics, channels_of_cut, reestimated, statistics
from baselines.peers import PAD_NODE, Peer, channels_of, run_peer
from baselines.sequential import exact_sequential
from baselines.workbench import Workbench
from bench_ablations import own, own_outputs, own_statistics, own_uniform, per_layer
from bench_cell import Method, Outcomes, best

from onnxprune.graph.uses import Use
from onnxprune.pipeline.pricing import Pricing
from onnxprune.selection.base import Ranking

Array = np.ndarray
Criterion = Callable[[Workbench], tuple[Ranking, ...]]
Compensation = Callable[[Workbench, Array], dict[Use, Array]]


def _rankings(bench: Workbench, criterion: Criterion) -> tuple[Ranking, ...]:
    return bench.once(("order", criterion), lambda: criterion(bench))


def _choices(bench: Workbench, criterion: Criterion) -> Pricing:
    return bench.once(("curves", criterion), lambda: bench.priced(_rankings(bench, criterion)))


def _statistics(bench: Workbench) -> Statistics:
    return bench.once(("statistics",), lambda: statistics(bench, bench.work.loaded.proto))


def _uniform(bench: Workbench, criterion: Criterion, kept: float) -> dict[str, Array | None]:
    """The same share of every group, and of every group but residual streams, as papers on them do."""
    rankings = _rankings(bench, criterion)
    found = {"all groups": bench.uniform(rankings, kept, frozenset())}
    if bench.streams:
        found["without streams"] = bench.uniform(rankings, kept, bench.streams)
    return found


def _allocated(bench: Workbench, criterion: Criterion, kept: float) -> dict[str, Array | None]:
    """The package's own allocator, on error curves measured for this criterion."""
    return {"allocated": bench.allocated(_choices(bench, criterion), kept)}


def literature(
    criterion: Criterion, compensation: Compensation, budget: Callable[..., dict[str, Array | None]]
) -> Method:
    """Select, cut, compensate, re-estimate statistics; of the variants, the holdout chooses."""

    def method(bench: Workbench, kept: Sequence[float], python: str) -> Outcomes:
        for fraction in kept:
            tried: dict[str, onnx.ModelProto] = {}
            for note, keep in budget(bench, criterion, fraction).items():
                if keep is None:
                    continue
                model = bench.cut(keep, compensation(bench, keep))
                tried[note] = model
                channels = channels_of_cut(bench, keep)
                tried[f"{note}, re-estimated"] = reestimated(bench, model, channels, _statistics(bench))
            yield fraction, best(bench, tried)

    return method


def peer(script: str, settings: Mapping[str, object], scopes: tuple[bool, ...]) -> Method:
    """Another tool, its result re-estimated; of the variants, the holdout chooses."""

    def method(bench: Workbench, kept: Sequence[float], python: str) -> Outcomes:
        outcome = run_peer(bench, Peer(script, settings, scopes), python, kept)
        wanted = statistics(bench, outcome.whole)
        for fraction in kept:
            tried: dict[str, onnx.ModelProto] = {}
            for note, model in outcome.models[fraction].items():
                tried[note] = model
                channels = channels_of(outcome.whole, model)
                tried[f"{note}, re-estimated"] = reestimated(bench, model, channels, wanted)
            found = best(bench, tried, PAD_NODE)
            yield fraction, f"{found}: {outcome.said[fraction]}" if isinstance(found, str) else found

    return method


def torch_pruning(importance: str, everywhere: bool) -> Method:
    return peer("peer_torch_pruning.py", {"importance": importance, "global": everywhere}, (True, False))


def onnxsim(method: str, everywhere: bool) -> Method:
    return peer("peer_onnxsim.py", {"method": method, "global": everywhere}, (True,))


DEFAULT = "onnxprune"
OWN: Mapping[str, Method] = MappingProxyType(
    {
        DEFAULT: own(),
        "onnxprune-select-qr": own(select="qr"),
        "onnxprune-select-obs": own(select="obs"),
        "onnxprune-select-magnitude": own(select="magnitude"),
        "onnxprune-select-random": own(select="random"),
        "onnxprune-refit-none": own(refit="none"),
        "onnxprune-refit-per-layer": own(effort="fast", change=per_layer),
        "onnxprune-refit-sequential": own(effort="fast", change=own_outputs),
        "onnxprune-effort-fast": own(effort="fast"),
        "onnxprune-effort-best": own(effort="best"),
        "onnxprune-uniform": own_uniform,
        "onnxprune-statistics": own_statistics,
    }
)
_PAIRS: Mapping[str, tuple[Criterion, Compensation]] = {
    "magnitude": (rank.magnitude, compensate.nothing),
    "chapr-qr": (rank.contribution_qr, compensate.nothing),
    "interpolative": (rank.activation_qr, compensate.interpolative),
    "grail-magnitude": (rank.magnitude, compensate.gram_ridge),
    "grail-wanda": (rank.wanda, compensate.gram_ridge),
    "block-obs": (rank.block_obs, compensate.exact),
    "block-obs-sequential": (rank.block_obs, exact_sequential),
}
LITERATURE: Mapping[str, Method] = MappingProxyType(
    {
        f"{name}-{budget.__name__.strip('_')}": literature(criterion, compensation, budget)
        for name, (criterion, compensation) in _PAIRS.items()
        for budget in (_uniform, _allocated)
    }
)
PEERS: Mapping[str, Method] = MappingProxyType(
    {
        "torch-pruning-l2": torch_pruning("l2", False),
        "torch-pruning-l2-global": torch_pruning("l2", True),
        "torch-pruning-bn-global": torch_pruning("bn", True),
        "torch-pruning-taylor-global": torch_pruning("taylor", True),
        "torch-pruning-hessian-global": torch_pruning("hessian", True),
        "onnxsim-l2": onnxsim("l2", False),
        "onnxsim-l2-global": onnxsim("l2", True),
        "onnxsim-wanda": onnxsim("wanda", False),
        "onnxsim-wanda-global": onnxsim("wanda", True),
    }
)
METHODS: Mapping[str, Method] = MappingProxyType({**OWN, **LITERATURE, **PEERS})
