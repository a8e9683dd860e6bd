"""Proof, before anything is written, that a pruned model is sound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx

from onnxprune.coupling.estimates import estimated
from onnxprune.coupling.groups import Coupling
from onnxprune.engine.session import ONE_PIECE, Engine, open_literal_session, open_session, run
from onnxprune.errors import ModelError
from onnxprune.graph.infer import declared_shape
from onnxprune.graph.inferred import objection
from onnxprune.graph.tensors import model_bytes, outlined
from onnxprune.result import Verification
from onnxprune.surgery.cut import cut, mask
from onnxprune.verify.guided import choosing, side_by_side

Array = np.ndarray
#: Largest relative error that float32 arithmetic in another order explains; half precision gets more room.
TOLERANCE = {2: 5e-2, 4: 1e-4, 8: 1e-9}
HALF = frozenset({onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16})
#: How many times over the rounding that was measured is tolerated, and the relative error that no rounding excuses.
ROUNDINGS, MOST_ROUNDING = 4.0, 1e-2


def verify(
    coupling: Coupling,
    keep: Array,
    pruned: onnx.ModelProto,
    complaints_before: tuple[str, ...],
    feeds: Mapping[str, Array],
    engine: Engine,
) -> Verification:
    """All four checks: checker, onnxruntime, signature, masked equivalence.

    ``complaints_before``: what ``onnx.checker`` already held against the original, which is not held against the
    result.  Masked equivalence is measured, but not held against a cut of the approximate rules that narrows a
    normalization.  Never raises for a failed check: ``Verification.complaints`` says what failed.
    """
    sound = soundness(pruned, coupling.graph.model, complaints_before, feeds, engine)
    complaints = list(sound.complaints)
    worst, tolerance = masked_error(coupling, keep, feeds, engine)
    estimates = tuple(node.label for node in estimated(coupling, keep))
    if not estimates and not worst <= tolerance:
        complaints.append(f"masked equivalence fails: relative error {worst:.2e}, allowed {tolerance:.0e}")
    return replace(sound, masked_max_rel_err=worst, complaints=tuple(complaints), estimates=estimates)


def soundness(
    model: onnx.ModelProto,
    original: onnx.ModelProto,
    complaints_before: tuple[str, ...],
    feeds: Mapping[str, Array],
    engine: Engine,
) -> Verification:
    """The checks of :func:`verify` that hold for any model in the place of ``original``: checker, onnxruntime, finite
    outputs, signature."""
    complaints: list[str] = []
    whole = model_bytes(model) < ONE_PIECE
    checked = None if complaints_before else objection(model if whole else outlined(model))
    if checked is not None:
        complaints.append(f"onnx.checker: {checked}")
    loaded = True
    try:
        results = run(open_session(model, engine), feeds)
        endless = [k for k, result in enumerate(results) if not _is_finite(result)]
        if endless:
            # Masked places are infinite by design.
            wanted = run(open_session(original, engine), feeds)
            endless = [k for k in endless if _is_finite(wanted[k])]
        for k in endless:
            name = model.graph.output[k].name
            complaints.append(f"output '{name}' of the pruned model is not finite on the calibration data")
    except ModelError as error:
        loaded = False
        complaints.append(str(error))
    same = signature(model) == signature(original)
    if not same:
        complaints.append("the inputs or outputs of the pruned model are not those of the original")
    return Verification(checked is None, loaded, same, 0.0, tuple(complaints))


def signature(model: onnx.ModelProto) -> list[tuple[str, str, int, tuple[int | str | None, ...] | None]]:
    """(direction, name, element type, dims) of every input that must be fed and of every output."""
    stored = {t.name for t in model.graph.initializer}
    found: list[tuple[str, str, int, tuple[int | str | None, ...] | None]] = []
    for direction, values in (("in", model.graph.input), ("out", model.graph.output)):
        for value in values:
            if direction == "in" and value.name in stored:
                continue
            kind = value.type.tensor_type
            dims = declared_shape(value.type)
            named = (
                None
                if dims is None
                else tuple(d if d is not None else (kind.shape.dim[k].dim_param or None) for k, d in enumerate(dims))
            )
            found.append((direction, value.name, int(kind.elem_type), named))
    return found


def masked_error(coupling: Coupling, keep: Array, feeds: Mapping[str, Array], engine: Engine) -> tuple[float, float]:
    """(largest relative error of the un-refitted cut against the masked original, what is tolerated).

    Relative to the largest value of the original's output, so that an output which the mask makes vanish is not
    divided by itself.  Both run as users run models.  Where they differ by more than usual, they run again, in sessions
    that compute what is written: fused kernels may round otherwise in a graph with a mask in it, and 8-bit ones saturate
    on some processors.  Where outputs differ by what was chosen (a TopK among ties), the cut model is given the choices
    of the masked original, and what it chooses by is compared, too.  Where they still differ, rounding is measured: what
    a change of the inputs in their last bit, or another order of the same operations, does to the masked original, a few
    times over, is no fault of the cut.
    """
    if keep.all():
        return 0.0, TOLERANCE[4]
    small, silenced, whole = cut(coupling, keep), mask(coupling, keep), coupling.graph.model
    try:
        found, masked, base = (run(open_session(model, engine), feeds) for model in (small, silenced, whole))
    except ModelError:
        return float("inf"), TOLERANCE[4]
    worst = _worst(found, masked, base)
    tolerance = max([TOLERANCE[4], *(TOLERANCE.get(a.dtype.itemsize, 1e-4) for a in found if a.dtype.kind == "f")])
    if _in_half(coupling):
        tolerance = max(tolerance, TOLERANCE[2])
    if worst <= tolerance:
        return worst, tolerance
    try:
        found, again, base = (run(open_literal_session(model, engine), feeds) for model in (small, silenced, whole))
        worst = min(worst, _worst(found, again, base))
        if tolerance < worst and (nodes := choosing(coupling, keep)):
            by_mask, by_cut = side_by_side(silenced, small, nodes, feeds, engine)
            worst = min(worst, _worst(by_cut, by_mask, by_mask))
        if tolerance < worst < MOST_ROUNDING:
            nudged = run(open_session(silenced, engine), _in_the_last_bit(feeds))
            rounding = max(_worst(other, masked, base) for other in (nudged, again))
            tolerance = max(tolerance, min(MOST_ROUNDING, ROUNDINGS * rounding))
    except ModelError:
        return float("inf"), TOLERANCE[4]
    return worst, tolerance


def _in_half(coupling: Coupling) -> bool:
    """Whether a layer multiplies half precision numbers, whatever type the outputs are cast to in the end."""
    layers = (coupling.graph.nodes[index] for index, bound in coupling.walked.bounds.items() if bound.rule.macs)
    return any(coupling.facts.dtypes.get(value or "") in HALF for node in layers for value in node.inputs)


def _worst(found: Sequence[Array], wanted: Sequence[Array], original: Sequence[Array]) -> float:
    worst = 0.0
    for a, b, c in zip(found, wanted, original, strict=True):
        if a.shape != b.shape:
            return float("inf")
        if a.size == 0 or a.dtype.kind not in "fiub":
            continue
        left, right, whole = (v.astype(np.float64) for v in (a, b, c))
        told = np.isfinite(right)
        if not np.array_equal(left[~told], right[~told], equal_nan=True) or not np.isfinite(left[told]).all():
            return float("inf")
        whole = np.where(np.isfinite(whole), whole, 0.0)
        size = max(float(np.abs(right[told]).max(initial=0.0)), float(np.abs(whole).max()), 1e-30)
        worst = max(worst, float(np.abs(left[told] - right[told]).max(initial=0.0)) / size)
    return worst


def _is_finite(output: Array) -> bool:
    return output.dtype.kind != "f" or bool(np.isfinite(output.astype(np.float64)).all())


def _in_the_last_bit(feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Every floating-point input, each of its numbers moved to a neighbouring one; seeded."""
    generator = np.random.default_rng(0)
    return {
        name: np.nextafter(array, np.where(generator.random(array.shape) < 0.5, -np.inf, np.inf).astype(array.dtype))
        if array.dtype.kind == "f"
        else array
        for name, array in feeds.items()
    }
