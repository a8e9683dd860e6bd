"""The checks of a pruned model before it is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort

from onnxprune.coupling.estimates import estimated
from onnxprune.coupling.groups import Coupling
from onnxprune.engine.loadable import Loadable, loadable
from onnxprune.engine.session import Engine, open_literal_session, open_session, run
from onnxprune.errors import ModelError
from onnxprune.graph.infer import declared_shape
from onnxprune.graph.inferred import objection
from onnxprune.graph.tensors import ONE_PIECE, model_bytes, outlined
from onnxprune.graph.view import Node
from onnxprune.measure.fields import fields_of
from onnxprune.result import Verification
from onnxprune.surgery.cut import cut, mask
from onnxprune.verify.guided import choosing, ending, side_by_side

Array = np.ndarray
#: Bytes per number → the largest relative error that another order of the same arithmetic explains.
TOLERANCE = {2: 5e-2, 4: 1e-4, 8: 1e-9}
HALF = frozenset({onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16})
#: Tolerated multiple of the measured rounding error, and the relative error that no rounding excuses.
ROUNDINGS, MAX_ROUNDING = 4.0, 1e-2


def verify(
    coupling: Coupling,
    keep: Array,
    pruned: onnx.ModelProto,
    complaints_before: tuple[str, ...],
    feeds: Mapping[str, Array],
    engine: Engine,
) -> Verification:
    """All four checks: checker, onnxruntime, interface, masked equivalence.

    ``complaints_before`` are the objections of ``onnx.checker`` to the original; the result may have them too.  A cut
    of the approximate rules that narrows a normalization need not pass masked equivalence, but the error is measured.
    Never raises for a failed check: ``Verification.complaints`` says what failed.
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
    """The checks of :func:`verify` for any model that replaces ``original``: checker, onnxruntime, finite outputs,
    interface."""
    complaints: list[str] = []
    in_one_piece = model_bytes(model) < ONE_PIECE
    checked = None if complaints_before else objection(model if in_one_piece else outlined(model))
    if checked is not None:
        complaints.append(f"onnx.checker: {checked}")
    loaded = True
    try:
        results = run(open_session(model, engine), feeds)
        infinite = [k for k, result in enumerate(results) if not _is_finite(result)]
        if infinite:
            # The original may return infinity on purpose, for example in an attention mask.
            wanted = run(open_session(original, engine), feeds)
            infinite = [k for k in infinite if _is_finite(wanted[k])]
        for k in infinite:
            name = model.graph.output[k].name
            complaints.append(f"output '{name}' of the pruned model is not finite on the calibration data")
    except ModelError as error:
        loaded = False
        complaints.append(str(error))
    same = interface(model) == interface(original)
    if not same:
        complaints.append("the inputs or outputs of the pruned model differ from those of the original")
    return Verification(checked is None, loaded, same, 0.0, tuple(complaints))


def interface(model: onnx.ModelProto) -> list[tuple[str, str, int, tuple[int | str | None, ...] | None]]:
    """(direction, name, element type, dims) of every input that a caller must feed and of every output."""
    stored = {t.name for t in model.graph.initializer}
    entries: list[tuple[str, str, int, tuple[int | str | None, ...] | None]] = []
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
            entries.append((direction, value.name, int(kind.elem_type), named))
    return entries


def masked_error(coupling: Coupling, keep: Array, feeds: Mapping[str, Array], engine: Engine) -> tuple[float, float]:
    """(largest relative error of the cut, without a refit, against the masked original; the tolerated error).

    The error is relative to the largest value of the original's output, because the mask may make an output vanish.
    If nothing of a part of an output could be seen that way, because it vanishes or stands beside far larger numbers, the
    values before its last activation are compared.  They decide, unless rounding could explain their error or the numbers
    of rows differ.
    Then four comparisons follow each other; each runs only if the one before exceeds the tolerance:

    1. Both models run as users run them.
    2. Both run literally: fused kernels may round differently in a graph with a mask, and 8-bit kernels saturate on some
       processors.
    3. The cut model gets the discrete choices of the masked original (a TopK among ties), and the values after the
       choices are compared too.
    4. The tolerance grows to a few times the measured rounding error: the change of the masked original if the last bit
       of its inputs changes, or the order of its operations.
    """
    if keep.all():
        return 0.0, TOLERANCE[4]
    # Build each model when it is needed, and release it before onnxruntime copies its weights.
    models: tuple[Callable[[], onnx.ModelProto], ...] = (
        lambda: cut(coupling, keep),
        lambda: mask(coupling, keep),
        lambda: coupling.graph.model,
    )
    try:
        outputs, masked, base = (_answers(model, open_session, engine, feeds) for model in models)
    except ModelError:
        return float("inf"), TOLERANCE[4]
    worst = _worst(outputs, masked, base)
    tolerance = max([TOLERANCE[4], *(TOLERANCE.get(a.dtype.itemsize, 1e-4) for a in outputs if a.dtype.kind == "f")])
    if _in_half(coupling):
        tolerance = max(tolerance, TOLERANCE[2])
    try:
        if _unseen(coupling, masked, base) and (ends := ending(coupling, keep)):
            before = _guided(coupling, keep, ends, feeds, engine)
            if tolerance < before and (nodes := choosing(coupling, keep)):
                before = min(before, _guided(coupling, keep, (*ends, *nodes), feeds, engine))
            if before <= tolerance or MAX_ROUNDING <= before < float("inf"):
                return before, tolerance
        if worst <= tolerance:
            return worst, tolerance
        outputs, again, base = (_answers(model, open_literal_session, engine, feeds) for model in models)
        worst = min(worst, _worst(outputs, again, base))
        if tolerance < worst and (nodes := choosing(coupling, keep)):
            worst = min(worst, _guided(coupling, keep, nodes, feeds, engine))
        if tolerance < worst < MAX_ROUNDING:
            nudged = _answers(models[1], open_session, engine, _in_the_last_bit(feeds))
            rounding = max(_worst(other, masked, base) for other in (nudged, again))
            tolerance = max(tolerance, min(MAX_ROUNDING, ROUNDINGS * rounding))
    except ModelError:
        return float("inf"), TOLERANCE[4]
    return worst, tolerance


def _answers(
    make: Callable[[], onnx.ModelProto],
    begin: Callable[[Loadable, Engine], ort.InferenceSession],
    engine: Engine,
    feeds: Mapping[str, Array],
) -> list[Array]:
    with loadable(make) as model:
        session = begin(model, engine)
    return run(session, feeds)


def _guided(
    coupling: Coupling, keep: Array, nodes: Sequence[Node], feeds: Mapping[str, Array], engine: Engine
) -> float:
    by_mask, by_cut = side_by_side(mask(coupling, keep), cut(coupling, keep), nodes, feeds, engine)
    return _worst(by_cut, by_mask, by_mask)


def _unseen(coupling: Coupling, masked: Sequence[Array], original: Sequence[Array]) -> bool:
    """Whether an error as large as a part of an output would be tolerated, or is no larger than rounding."""
    for field in fields_of(coupling, coupling.graph.outputs):
        arrays = masked[field.output], original[field.output]
        kind = arrays[0].dtype
        if kind.kind != "f":
            continue
        whole = max(_size(array) for array in arrays)
        part = whole
        # The number of rows may depend on the values.
        if field.axis is not None and all(a.ndim > field.axis and a.shape[field.axis] > field.channels[-1] for a in arrays):
            part = max(_size(np.take(array, field.channels, field.axis)) for array in arrays)
        tolerance = TOLERANCE.get(kind.itemsize, TOLERANCE[4])
        if part * tolerance < np.finfo(kind).eps or part < whole * tolerance:
            return True
    return False


def _size(array: Array) -> float:
    return float(np.abs(np.nan_to_num(array.astype(np.float64))).max(initial=0.0))


def _in_half(coupling: Coupling) -> bool:
    """Whether a layer multiplies half-precision numbers, whatever the type of the model's outputs."""
    layers = (coupling.graph.nodes[index] for index, bound in coupling.walked.bounds.items() if bound.rule.macs)
    return any(coupling.facts.dtypes.get(value or "") in HALF for node in layers for value in node.inputs)


def _worst(outputs: Sequence[Array], wanted: Sequence[Array], original: Sequence[Array]) -> float:
    """The largest error of ``outputs`` against ``wanted``, relative to the largest value of either ``wanted`` or
    ``original``; infinity if shapes or non-finite values differ."""
    worst = 0.0
    for a, b, c in zip(outputs, wanted, original, strict=True):
        if a.shape != b.shape:
            return float("inf")
        if a.size == 0 or a.dtype.kind not in "fiub":
            continue
        left, right, base = (v.astype(np.float64) for v in (a, b, c))
        finite = np.isfinite(right)
        if not np.array_equal(left[~finite], right[~finite], equal_nan=True) or not np.isfinite(left[finite]).all():
            return float("inf")
        base = np.where(np.isfinite(base), base, 0.0)
        size = max(float(np.abs(right[finite]).max(initial=0.0)), float(np.abs(base).max()), 1e-30)
        worst = max(worst, float(np.abs(left[finite] - right[finite]).max(initial=0.0)) / size)
    return worst


def _is_finite(output: Array) -> bool:
    return output.dtype.kind != "f" or bool(np.isfinite(output.astype(np.float64)).all())


def _in_the_last_bit(feeds: Mapping[str, Array]) -> dict[str, Array]:
    """``feeds`` with every floating-point number replaced by one of its two neighbours, chosen with a fixed seed."""
    generator = np.random.default_rng(0)
    return {
        name: np.nextafter(array, np.where(generator.random(array.shape) < 0.5, -np.inf, np.inf).astype(array.dtype))
        if array.dtype.kind == "f"
        else array
        for name, array in feeds.items()
    }
