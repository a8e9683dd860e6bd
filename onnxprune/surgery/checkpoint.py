"""Apply a cut to a checkpoint of the training framework, so that training can continue with the smaller model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.open import couple
from onnxprune.errors import PlanError
from onnxprune.graph.load import load
from onnxprune.plan import Plan, TensorCut, fingerprint, keep_vector
from onnxprune.surgeon import Model

#: Maximum names to list; the rest is counted.
LISTED = 5
#: In inference mode exporters fold, rename and merge tensors.
REMEDY = "export with training=TrainingMode.TRAINING and without constant folding, so that every tensor keeps its name"
#: The name that frameworks give to the statistics of a BatchNormalization.
STATISTICS = "running_mean"


class Tensor(Protocol):
    """The common interface of a numpy array and a torch tensor."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, index: tuple[object, ...], /) -> object: ...


TensorType = TypeVar("TensorType", bound=Tensor)


def tensor_cuts(coupling: Coupling, keep: np.ndarray) -> tuple[TensorCut, ...]:
    """The positions that a cut keeps of every stored tensor it touches.  One entry per cut, if readers cut differently."""
    masks = coupling.masks(keep)
    cuts: dict[str, TensorCut] = {}
    for key, lines in coupling.units.items():
        named = _named(coupling, coupling.value_of(key), len(lines)) if isinstance(key, tuple) else None
        if named is None:
            continue
        name, axes = named
        kept = {axes[axis]: np.flatnonzero(masks(key, axis)) for axis in range(len(lines))}
        lengths = tuple(len(lines[axes.index(axis)]) for axis in range(len(lines)))
        cut = {a: tuple(int(p) for p in kept[a]) for a in sorted(kept) if len(kept[a]) < lengths[a]}
        if cut:
            entry = TensorCut(name, lengths, cut)
            cuts[repr((name, sorted(cut.items())))] = entry
    return tuple(cuts.values())


def _named(coupling: Coupling, value: str, rank: int) -> tuple[str, tuple[int, ...]] | None:
    """The tensor of the framework that a constant holds, and for each axis of the constant the axis of that tensor.

    For merged equal tensors, exporters keep the name in an Identity.  In front of a MatMul they transpose the matrix of a
    linear layer.  ``None``: the framework has no such tensor.
    """
    graph, axes = coupling.graph, tuple(range(rank))
    while value not in graph.initializers:
        node = graph.nodes[graph.producer[value]] if value in graph.producer else None
        if node is None or node.domain or node.op not in ("Identity", "Transpose"):
            return None
        if node.op == "Identity":
            break
        order = node.integers("perm") or tuple(range(rank))[::-1]
        axes = tuple(order[axis] for axis in axes)
        value = node.inputs[0] or ""
    return value, axes


def torch_plan(plan: Plan | str | Path, state_dict: Mapping[str, TensorType], model: Model | None = None) -> dict[str, TensorType]:
    """``state_dict`` with every tensor that the plan cuts sliced, and the others unchanged.

    Works on arrays and on torch tensors: it only indexes them and does not import torch.  A tensor stays a tensor, with
    its dtype and device.  Names must be those of the ONNX initializers, except for a common prefix such as ``module.``.
    Vectors that the exporter merged with equal ones are cut like the other vectors of their module.  Pass the original
    ONNX ``model`` for a plan written by hand, which lists no tensors.  The weights are those of the checkpoint, not
    refitted.

    Raises:
        PlanError: if a tensor that the plan cuts is missing from ``state_dict`` or has another shape there; names it.

    >>> from onnxprune.plan import Plan, TensorCut
    >>> plan = Plan("", (), (TensorCut("weight", (4, 2), {0: (0, 2)}),))
    >>> torch_plan(plan, {"weight": np.arange(8).reshape(4, 2)})["weight"].tolist()
    [[0, 1], [4, 5]]
    """
    plan = plan if isinstance(plan, Plan) else Plan.read(plan)
    cuts = plan.tensors if model is None else _from_model(plan, model)
    if not cuts and plan.cuts:
        raise PlanError("the plan lists no tensors (written by hand?); also give the original ONNX model as 'model'")
    names = [cut.name for cut in cuts]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise PlanError(f"{_list(twice)}: readers of the same tensor keep different parts of it; {REMEDY}")
    prefix = _prefix(names, state_dict)
    missing = [name for name in names if prefix + name not in state_dict]
    if missing:
        raise PlanError(
            f"the plan cuts {_list(missing)}, which the checkpoint does not have (it has {_list(list(state_dict))}); "
            f"{REMEDY}"
        )
    for cut in cuts:
        shape = tuple(state_dict[prefix + cut.name].shape)
        if shape != cut.shape:
            raise PlanError(f"'{cut.name}' has shape {shape} in the checkpoint, but {cut.shape} in the ONNX model")
    _refuse_folded(cuts, state_dict)
    small = dict(state_dict)
    for cut in (*cuts, *_merged(cuts, prefix, state_dict)):
        small[prefix + cut.name] = _sliced(state_dict[prefix + cut.name], cut)
    return small


def _sliced(tensor: TensorType, cut: TensorCut) -> TensorType:
    value: object = tensor
    for axis, kept in cut.kept.items():
        # A list as an index means the same to numpy and to torch.
        value = value[(slice(None),) * axis + (list(kept),)]  # type: ignore[index]
    return value  # type: ignore[return-value]


def _from_model(plan: Plan, model: Model) -> tuple[TensorCut, ...]:
    loaded = load(model)
    if plan.model != fingerprint(loaded.proto):
        raise PlanError("the plan is for another model: its nodes or the shapes of its weights differ")
    coupling = couple(loaded.proto, {}, None, plan.rules)
    return tensor_cuts(coupling, keep_vector(plan, {g.name: g.units for g in coupling.groups}, coupling.unit_count))


def _prefix(names: list[str], state_dict: Mapping[str, object]) -> str:
    """The prefix, such as ``module.``, that the checkpoint puts before the model's names; may be empty."""
    if not names or names[0] in state_dict:
        return ""
    for name in state_dict:
        if name.endswith("." + names[0]):
            return name[: -len(names[0])]
    return ""


def _merged(cuts: tuple[TensorCut, ...], prefix: str, state_dict: Mapping[str, Tensor]) -> list[TensorCut]:
    """Cuts of vectors that the ONNX model lacks, because exporters store equal tensors once.

    A vector is cut like another vector of the same length in the same module (the vectors of a normalization).

    Raises:
        PlanError: if the module has only a matrix or kernel of that length: the matching axis is then unknown.
    """
    beside: dict[str, list[TensorCut]] = {}
    for cut in cuts:
        beside.setdefault(cut.name.rpartition(".")[0], []).append(cut)
    names = {cut.name for cut in cuts}
    merged, unsure = [], []
    for full, tensor in state_dict.items():
        name = full.removeprefix(prefix)
        shape = tuple(tensor.shape)
        if name in names or len(shape) != 1:
            continue
        near = [cut for cut in beside.get(name.rpartition(".")[0], ()) if cut.shape[0] == shape[0] and 0 in cut.kept]
        vectors = [cut for cut in near if len(cut.shape) == 1]
        if vectors:
            merged.append(TensorCut(name, shape, vectors[0].kept))
        elif near:
            unsure.append(name)
    if unsure:
        raise PlanError(f"{_list(unsure)} may need a cut too, but the ONNX model has no such tensor; {REMEDY}")
    return merged


def _refuse_folded(cuts: tuple[TensorCut, ...], state_dict: Mapping[str, Tensor]) -> None:
    """Raise PlanError for a normalization that the exporter folded into a layer: its statistics would stay uncut."""
    statistics = [name for name in state_dict if name.endswith(STATISTICS)]
    lengths = {cut.shape[0] for cut in cuts if 0 in cut.kept}
    cut_too = any(cut.name.endswith(STATISTICS) for cut in cuts)
    left = [name for name in statistics if state_dict[name].shape[0] in lengths]
    if left and not cut_too:
        raise PlanError(
            f"the checkpoint has {_list(left)}, but the plan cuts no BatchNormalization of the ONNX model: the exporter "
            f"folded it into the layer before; {REMEDY}"
        )


def _list(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:LISTED])
    return f"{shown} and {len(names) - LISTED} more" if len(names) > LISTED else shown
