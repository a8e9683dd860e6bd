"""The slice law, two ways: on a bound rule directly, and on a one-node model through the whole pipeline."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper as oh
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxprune.coupling.coupled import couple_graph
from onnxprune.coupling.open import facts_of
from onnxprune.coupling.rule import Bound, NodeInfo, Role
from onnxprune.graph.facts import Facts
from onnxprune.graph.view import view
from onnxprune.surgery.cut import cut, mask

Array = np.ndarray
Term = tuple[tuple[str, ...], ...]
ort.set_default_logger_severity(4)


def execute(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """Outputs by onnxruntime, or by the reference implementation where onnxruntime cannot."""
    try:
        return by_runtime(model, feeds)
    except Exception as error:
        if any(node.domain for node in model.graph.node):
            raise RuntimeError(str(error)) from error
    return by_reference(model, feeds)


def by_runtime(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    # Fused kernels would check onnxruntime's optimizer, not the rule.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


def by_reference(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    return [np.asarray(x) for x in ReferenceEvaluator(model).run(None, dict(feeds))]


def engine(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> Callable[..., list[Array]]:
    """The one that runs the original.  It must also run what is cut: another might be more forgiving."""
    try:
        by_runtime(model, feeds)
    except Exception:
        return by_reference
    return by_runtime


def shaped(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> onnx.ModelProto:
    """Stating the shapes of ``feeds``, and none of the outputs, so that smaller tensors can be fed."""
    found = copy.deepcopy(model)
    for value in [*found.graph.input, *found.graph.output]:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
            if value.name in feeds:
                for size in feeds[value.name].shape:
                    value.type.tensor_type.shape.dim.add().dim_value = size
                if not feeds[value.name].shape:
                    value.type.tensor_type.shape.SetInParent()
    return found


def one_node(
    op: str, inputs: Sequence[Array | None], attributes: Mapping[str, object], domain: str, outputs: int, opset: int
) -> onnx.ModelProto:
    names = [f"i{k}" if x is not None else "" for k, x in enumerate(inputs)]
    node = oh.make_node(op, names, [f"o{k}" for k in range(outputs)], domain=domain, **dict(attributes))
    values = [
        oh.make_tensor_value_info(f"i{k}", oh.np_dtype_to_tensor_dtype(x.dtype), None)
        for k, x in enumerate(inputs)
        if x is not None
    ]
    outs = [oh.make_empty_tensor_value_info(f"o{k}") for k in range(outputs)]
    graph = oh.make_graph([node], "one", values, outs)
    imports = [oh.make_opsetid("", opset), oh.make_opsetid("com.microsoft", 1)]
    model = shaped(oh.make_model(graph, opset_imports=imports, ir_version=8 if opset < 21 else 10), feeds_of(inputs))
    for out, array in zip(model.graph.output, execute(model, feeds_of(inputs)), strict=True):
        out.type.tensor_type.elem_type = oh.np_dtype_to_tensor_dtype(array.dtype)
    return model


def feeds_of(inputs: Sequence[Array | None]) -> dict[str, Array]:
    return {f"i{k}": x for k, x in enumerate(inputs) if x is not None}


def info_of(model: onnx.ModelProto, feeds: Mapping[str, Array], results: Mapping[str, Array]) -> NodeInfo:
    """The only node of ``model``, with every input known as a value and every output known by shape."""
    graph = view(model)
    known = {**feeds, **results}
    shapes = {name: tuple(x.shape) for name, x in known.items()}
    dtypes = {name: int(oh.np_dtype_to_tensor_dtype(x.dtype)) for name, x in known.items()}
    empty: frozenset[int] = frozenset()
    facts = Facts(shapes, dtypes, dict(feeds), empty, empty, {}, frozenset())
    return NodeInfo(graph.nodes[0], graph, facts)


def info_of_shapes(
    op: str,
    domain: str,
    inputs: Sequence[tuple[int, ...] | None],
    outputs: Sequence[tuple[int, ...]],
    attributes: Mapping[str, object],
) -> NodeInfo:
    """A node of which only shapes matter: inputs of zeros, ``None`` where one is left out."""
    feeds = feeds_of([None if shape is None else np.zeros(shape, np.float32) for shape in inputs])
    results = {f"o{k}": np.zeros(shape, np.float32) for k, shape in enumerate(outputs)}
    names = ["" if shape is None else f"i{k}" for k, shape in enumerate(inputs)]
    node = oh.make_node(op, names, list(results), domain=domain, **attributes)
    imports = [oh.make_opsetid("", 23), oh.make_opsetid("com.microsoft", 1)]
    return info_of(oh.make_model(oh.make_graph([node], "one", [], []), opset_imports=imports), feeds, results)


def _coordinates(dim: tuple[str, ...], factor: str, sizes: Mapping[str, int]) -> Array:
    return np.indices([sizes[f] for f in dim])[dim.index(factor)].ravel()


def sliced(x: Array, term: Term | None, factor: str, keep: Array, sizes: Mapping[str, int]) -> Array:
    for axis, dim in enumerate(term or ()):
        if factor in dim:
            x = np.compress(np.isin(_coordinates(dim, factor, sizes), keep), x, axis=axis)
    return x


def silenced(x: Array, term: Term | None, factor: str, keep: Array, sizes: Mapping[str, int], zero: Array) -> Array:
    for axis, dim in enumerate(term or ()):
        if factor in dim:
            gone = ~np.isin(_coordinates(dim, factor, sizes), keep)
            shape = [-1 if a == axis else 1 for a in range(x.ndim)]
            x = np.where(gone.reshape(shape), zero, x).astype(x.dtype)
    return x


def free_factors(bound: Bound) -> list[str]:
    """Factors of more than one position that the rule lets go."""
    return [
        f
        for f in bound.factors()
        if bound.sizes[f] > 1 and bound.role(f) in (Role.PASSED, Role.SUMMED)
    ]


def _zero(bound: Bound, slot: int, inputs: Sequence[Array | None]) -> Array:
    point = bound.rule.zeros.get(slot)
    value = inputs[point] if point is not None and point < len(inputs) else None
    if value is None:
        return np.zeros((), np.int8)
    if value.size == 1:
        return value.reshape(())
    own, term = bound.inputs[point] or (), bound.inputs[slot] or ()
    return value.reshape([value.shape[own.index(d)] if d in own and d else 1 for d in term])


def _rewritten(model: onnx.ModelProto, bound: Bound, factor: str, count: int) -> onnx.ModelProto:
    found = copy.deepcopy(model)
    node = found.graph.node[0]
    sizes = {**bound.sizes, factor: count}

    def put(name: str, value: object) -> None:
        for place in [k for k, a in enumerate(node.attribute) if a.name == name]:
            del node.attribute[place]
        node.attribute.append(oh.make_attribute(name, value))

    for name, text in bound.rule.attributes.items():
        parts = [math.prod(sizes[f] for f in part.split()) for part in text.split(",")]
        if factor in text.replace(",", " ").split():
            put(name, parts if len(parts) > 1 else parts[0])
    for name, (pinned, value) in bound.rule.pins.items():
        if pinned == factor:
            put(name, value)
    return found


def _resized(bound: Bound, op: str, slot: int, x: Array, factor: str, count: int, axes: Sequence[int]) -> Array:
    """Sizes that are stated as an operand of a node that keeps its channels."""
    if (op, slot) not in (("Resize", 3), ("MaxUnpool", 2)):
        return x
    out = bound.outputs[0] or ()
    x = x.copy()
    for place, axis in enumerate(axes or range(len(x))):
        if factor in out[axis]:
            x[place] = count
    return x


def check_rule(
    model: onnx.ModelProto, inputs: Sequence[Array | None], bound: Bound, tolerance: float
) -> dict[str, bool]:
    """factor -> whether op(cut(x)) == cut(op(x)), the parts that only sum being zeroed on the right."""
    node = model.graph.node[0]
    names = list(node.input)
    sizes = dict(bound.sizes)
    generator = np.random.default_rng(0)
    axes = next((list(a.ints) for a in node.attribute if a.name == "axes"), [])
    verdicts: dict[str, bool] = {}
    named = {name: x for name, x in zip(names, inputs, strict=True) if name and x is not None}
    run = engine(shaped(model, named), named)
    for factor in free_factors(bound):
        count = max(1, sizes[factor] // 2)
        keep = np.sort(generator.permutation(sizes[factor])[:count])
        small: dict[str, Array] = {}
        hushed: dict[str, Array] = {}
        declared = [slot for slot, axis in bound.rule.masks if slot < len(bound.inputs)]
        slots = declared or ([] if bound.in_output(factor) else bound.inputs_with(factor)[:1])
        if not bound.in_output(factor) and not any(s in bound.inputs_with(factor) for s in slots):
            slots = [*slots, bound.inputs_with(factor)[0]]
        for slot, (name, x) in enumerate(zip(names, inputs, strict=True)):
            if x is None:
                continue
            term = bound.inputs[slot]
            small[name] = sliced(x, term, factor, keep, sizes)
            small[name] = _resized(bound, node.op_type, slot, small[name], factor, count, axes)
            hushed[name] = x
            if slot in slots:
                axes_masked = {a for s, a in bound.rule.masks if s == slot}
                picked = tuple(
                    d if (not axes_masked or a in axes_masked or not bound.in_output(factor)) else ()
                    for a, d in enumerate(term or ())
                )
                hushed[name] = silenced(x, picked, factor, keep, sizes, _zero(bound, slot, inputs))
        got = run(shaped(_rewritten(model, bound, factor, count), small), small)
        full = run(shaped(model, hushed), hushed)
        terms = [t for t, name in zip(bound.outputs, node.output, strict=True) if name]
        want = [sliced(y, t, factor, keep, sizes) for y, t in zip(full, terms, strict=True)]
        verdicts[factor] = all(close(a, b, tolerance) for a, b in zip(got, want, strict=True))
    return verdicts


def close(got: Array, want: Array, tolerance: float) -> bool:
    if got.shape != want.shape:
        return False
    if got.dtype.kind not in "fiubc":
        return got.dtype.kind in "OSUV" or np.array_equal(got, want)
    a, b = got.astype(np.complex128), want.astype(np.complex128)
    finite = np.abs(b[np.isfinite(b)])
    scale = max(float(finite.max(initial=0)), 1e-6)
    # A rounded integer may land on the neighbour.
    quantum = 1.0 if want.dtype.kind in "iu" and tolerance > 1e-3 else 0.0
    return bool(np.allclose(a, b, rtol=0, atol=tolerance * scale + quantum, equal_nan=True))


def surround(model: onnx.ModelProto, inputs: Sequence[Array | None], chained: Sequence[int]) -> onnx.ModelProto | None:
    """``model``'s node between a maker and a reader that leave every axis free.

    A chained input is a constant times the scalar graph input; each output is summed with random weights.
    """
    node = model.graph.node[0]
    named = {name: x for name, x in zip(node.input, inputs, strict=True) if name and x is not None}
    results = execute(shaped(model, named), named)
    opset = next(o.version for o in model.opset_import if not o.domain)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    generator = np.random.default_rng(1)
    kept: dict[str, str] = {}
    for slot, (name, x) in enumerate(zip(node.input, inputs, strict=True)):
        if x is None or name in kept:
            continue
        kept[name] = name
        if slot not in chained:
            weights.append(numpy_helper.from_array(x, name))
            continue
        weights.append(numpy_helper.from_array(x.astype(np.float32), f"{name}_w"))
        nodes.append(oh.make_node("Mul", [f"{name}_w", "the_scalar"], [f"{name}_f"], name=f"make_{name}"))
        nodes.append(oh.make_node("Cast", [f"{name}_f"], [name], to=int(oh.np_dtype_to_tensor_dtype(x.dtype))))
    nodes.append(copy.deepcopy(node))
    outs: list[str] = []
    produced = [o for o in node.output if o]
    for name, y in zip(produced, results, strict=True):
        if y.dtype.kind not in "fiub" or y.ndim > 6:
            return None
        nodes.append(oh.make_node("Cast", [name], [f"{name}_r"], to=onnx.TensorProto.FLOAT))
        last = f"{name}_r"
        if y.ndim and opset >= 12:
            letters = "abcdef"[: y.ndim]
            weights.append(_random(generator, y.shape, f"{name}_s"))
            last = f"{name}_t"
            equation = f"{letters},{letters}->"
            nodes.append(oh.make_node("Einsum", [f"{name}_r", f"{name}_s"], [last], equation=equation))
        for axis in reversed(range(y.ndim if opset < 12 else 0)):
            weights.append(_random(generator, (y.shape[axis],), f"{name}_s{axis}"))
            nodes.append(oh.make_node("MatMul", [last, f"{name}_s{axis}"], [f"{name}_t{axis}"]))
            last = f"{name}_t{axis}"
        outs.append(last)
    graph = oh.make_graph(
        nodes,
        "surrounded",
        [oh.make_tensor_value_info("the_scalar", onnx.TensorProto.FLOAT, [1])],
        [oh.make_tensor_value_info(o, onnx.TensorProto.FLOAT, []) for o in outs],
        weights,
    )
    return oh.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _random(generator: np.random.Generator, shape: tuple[int, ...], name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), name)


def check_pipeline(model: onnx.ModelProto, tolerance: float, seeds: int) -> tuple[int, float]:
    """(number of groups, worst relative error of the cut against the masked original) of a surrounded node."""
    graph = view(model)
    shapes = {"the_scalar": (1,)}
    coupling = couple_graph(graph, facts_of(graph, shapes, shapes))
    worst = 0.0
    if not coupling.groups:
        return 0, worst
    valid = _is_valid(model)
    feeds = {"the_scalar": np.ones(1, np.float32)}
    run = engine(model, feeds)
    base = run(model, feeds)
    for seed in range(seeds):
        generator = np.random.default_rng(seed)
        keep = np.ones(coupling.unit_count, np.bool_)
        for group in coupling.groups:
            gone = generator.integers(0, len(group))
            keep[generator.permutation(group.units)[:gone]] = False
        small, masked = cut(coupling, keep), mask(coupling, keep)
        if valid:
            onnx.checker.check_model(small)
        for a, b, c in zip(run(small, feeds), run(masked, feeds), base, strict=True):
            scale = max(float(np.abs(b).max(initial=0)), float(np.abs(c).max(initial=0)), 1e-6)
            worst = max(worst, float(np.abs(a - b).max(initial=0)) / scale)
            if not np.isfinite(a).all() and np.isfinite(b).all():
                worst = float("inf")
    return len(coupling.groups), worst


def runs(model: onnx.ModelProto) -> bool:
    """Whether onnxruntime runs this model on the constant one."""
    try:
        execute(model, {"the_scalar": np.ones(1, np.float32)})
    except Exception:
        return False
    return True


def _is_valid(model: onnx.ModelProto) -> bool:
    """Some operators are deprecated in their own opset, which the checker refuses and runtimes run."""
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError:
        return False
    return True
