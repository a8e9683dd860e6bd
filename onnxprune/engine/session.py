"""onnxruntime sessions.  Their errors become errors of this package."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary, WeakSet

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper as oh
from onnx import numpy_helper

from onnxprune import telemetry
from onnxprune.engine.release import release_memory
from onnxprune.errors import EndlessError, ModelError
from onnxprune.graph.tensors import bodies_of, copied, map_tensors, model_bytes

Array = np.ndarray
#: Maximum bytes of a model in one protobuf message (the limit is 2 GiB).  Larger models hand arrays of LARGE bytes and
#: more to onnxruntime separately.
ONE_PIECE, LARGE = (1 << 31) - (1 << 26), 1 << 20
#: Bytes of a model above which freed memory that is not returned to the system matters.
HEAVY = 1 << 26
#: Operators that draw random numbers.  They may have a ``seed``.
RANDOM = frozenset(
    ["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"]
)
#: Maximum seconds per sample in a model with a Loop, the only operator that may never end, and the environment variable
#: that overrides it.
LOOP_SECONDS, SECONDS_SETTING = 6.0, "ONNXPRUNE_LOOP_SECONDS"
_LOOPING: WeakSet[ort.InferenceSession] = WeakSet()
#: Arrays that onnxruntime reads without a copy: they must live as long as their session.
_HELD: WeakKeyDictionary[ort.InferenceSession, Sequence[ort.OrtValue]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Engine:
    """How models run: execution providers, and the number of threads (0: one per core)."""

    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    threads: int = 0

    def cores(self) -> int:
        if self.threads:
            return self.threads
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def serialize(model: onnx.ModelProto) -> bytes:
    return bytes(model.SerializeToString(deterministic=True))


def open_session(
    model: onnx.ModelProto | bytes, engine: Engine, outputs: Sequence[str] | None = None
) -> ort.InferenceSession:
    """A session for ``model`` whose threads sleep between operators, because there may be many sessions.

    ``outputs``: values that it gives instead of the model's outputs.

    onnxruntime's default is busy waiting, which gains a little on an idle machine.  A refit opens dozens of sessions,
    each with its own threads: busy waiting would take the cores from the other sessions and from other processes.

    Raises:
        ModelError: if onnxruntime refuses the model; one line.
    """
    options = ort.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return _open(model, engine, options, outputs)


def open_timing_session(model: onnx.ModelProto | bytes, engine: Engine) -> ort.InferenceSession:
    """A session with onnxruntime's defaults, as users open it, for measuring time.

    Raises:
        ModelError: if onnxruntime refuses the model; one line.
    """
    return _open(model, engine, ort.SessionOptions())


def open_literal_session(
    model: onnx.ModelProto | bytes, engine: Engine, outputs: Sequence[str] | None = None
) -> ort.InferenceSession:
    """A session that runs the nodes exactly as written.  It computes nearly the same numbers on any processor.

    ``outputs``: values that it gives instead of the model's outputs.

    Other sessions fuse and reorder nodes.  On x86 without VNNI, their 8-bit kernels saturate 16-bit sums.

    Raises:
        ModelError: if onnxruntime refuses the model; one line.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.x64quantprecision", "1")
    return _open(model, engine, options, outputs)


def _open(
    model: onnx.ModelProto | bytes, engine: Engine, options: ort.SessionOptions, outputs: Sequence[str] | None = None
) -> ort.InferenceSession:
    telemetry.stop()
    options.intra_op_num_threads = engine.cores()
    options.log_severity_level = 4
    data, arrays = (model, ()) if isinstance(model, bytes) else _handed_over(model, options, outputs)
    try:
        session = ort.InferenceSession(data, options, providers=list(engine.providers))
        # onnxruntime keeps a copy of the model per session, to change providers later.  This package never does.
        session._model_bytes = None
        if arrays:
            _HELD[session] = arrays
        if not isinstance(model, bytes) and _loops((model.graph.node, *(f.node for f in model.functions))):
            _LOOPING.add(session)
        return session
    except Exception as error:
        raise ModelError(
            f"onnxruntime cannot load the model: {_first_line(error)}; onnxprune needs a model that onnxruntime can run"
        ) from error


def _handed_over(
    model: onnx.ModelProto, options: ort.SessionOptions, outputs: Sequence[str] | None
) -> tuple[bytes, Sequence[ort.OrtValue]]:
    """(bytes of the model with these ``outputs``, arrays handed over separately).

    A model beyond the size of a protobuf message leaves out its large arrays.  ``options`` then carries them; they must
    live as long as the session.  onnxruntime copies them once more.
    """
    model = _seeded(model)
    size = model_bytes(model)
    if size > HEAVY:
        release_memory()
    if size < ONE_PIECE:
        return serialize(model if outputs is None else with_outputs(model, outputs)), ()
    large = {t.name: t for t in model.graph.initializer if len(t.raw_data) >= LARGE}

    def outline(tensor: onnx.TensorProto) -> onnx.TensorProto:
        if tensor.name not in large or large[tensor.name] is not tensor:
            return tensor
        stub = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        stub.data_location = onnx.TensorProto.EXTERNAL
        # onnxruntime never reads this location: it gets the arrays by name.
        stub.external_data.add(key="location", value="given")
        return stub

    arrays = [ort.OrtValue.ortvalue_from_numpy(numpy_helper.to_array(tensor)) for tensor in large.values()]
    options.add_external_initializers(list(large), arrays)
    slim = map_tensors(model, outline)
    return serialize(slim if outputs is None else with_outputs(slim, outputs)), arrays


def _seeded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, or a copy with a seed at every node that draws random numbers.

    Two models that differ elsewhere then draw the same numbers, so that a difference between them is not chance.
    """
    if not any(True for _ in _drawing(model.graph)):
        return model
    copy = copied(model)
    for node in _drawing(copy.graph):
        if not any(attribute.name == "seed" for attribute in node.attribute):
            # Small enough to be exact in float32, the attribute's type.
            seed = zlib.crc32(node.output[0].encode()) % (1 << 16)
            node.attribute.append(oh.make_attribute("seed", float(seed)))
    return copy


def _drawing(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        if node.op_type in RANDOM and node.domain == "":
            yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _drawing(attribute.g)


def run(session: ort.InferenceSession, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Array]:
    """Run once.

    Raises:
        ModelError: if the run fails; one line.
    """
    names = None if outputs is None else list(outputs)
    try:
        if session in _LOOPING:
            return _run_bounded(session, feeds, names)
        return [np.asarray(r) for r in session.run(names, dict(feeds))]
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"onnxruntime cannot run the model on this data: {_first_line(error)}; check that the values and shapes suit it"
        ) from error


def _run_bounded(session: ort.InferenceSession, feeds: Mapping[str, Array], names: list[str] | None) -> list[Array]:
    """Run a model that may never end.  Stops it after a maximum number of seconds per sample."""
    stated = os.environ.get(SECONDS_SETTING, "")
    seconds = float(stated) if stated.replace(".", "", 1).isdigit() else LOOP_SECONDS
    allowed = seconds * max((len(array) for array in feeds.values() if array.ndim > 1), default=1)
    options = ort.RunOptions()
    late = threading.Event()

    def end() -> None:
        late.set()
        options.terminate = True

    timer = threading.Timer(allowed, end)
    timer.daemon = True
    timer.start()
    try:
        return [np.asarray(r) for r in session.run(names, dict(feeds), options)]
    except Exception as error:
        if not late.is_set():
            raise
        raise EndlessError(
            f"the model did not finish a run within {allowed:g} s: its Loop may never end; if it needs longer, set "
            f"{SECONDS_SETTING} to the maximum seconds per sample"
        ) from error
    finally:
        timer.cancel()


def _loops(graphs: Iterable[Iterable[onnx.NodeProto]]) -> bool:
    return any(
        node.op_type == "Loop" or _loops(body.node for a in node.attribute for body in bodies_of(a))
        for nodes in graphs
        for node in nodes
    )


def with_outputs(model: onnx.ModelProto, values: Sequence[str]) -> onnx.ModelProto:
    """A copy whose only outputs are ``values``.  onnxruntime infers their types."""
    copy = copied(model)
    del copy.graph.output[:]
    for value in values:
        copy.graph.output.add().name = value
    return copy


def _first_line(error: Exception) -> str:
    text = str(error).strip().replace("\n", " ")
    return text[:400] or type(error).__name__
