"""onnxruntime sessions, with their errors turned into ours."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper as oh
from onnx import numpy_helper

from onnxprune import telemetry
from onnxprune.engine.release import release_memory
from onnxprune.errors import ModelError
from onnxprune.graph.tensors import map_tensors, model_bytes

Array = np.ndarray
#: Protobuf holds messages below 2 GiB; arrays of this many bytes are given to onnxruntime apart where it must be.
ONE_PIECE, LARGE = (1 << 31) - (1 << 26), 1 << 20
#: Bytes of a model beside whose sessions it matters what memory is freed, but not given back.
HEAVY = 1 << 26
#: Operators that draw random numbers, from a seed of their own where they have one.
RANDOM = frozenset(
    ["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"]
)
#: Arrays that onnxruntime reads where they lie, while their session lives.
_HELD: WeakKeyDictionary[ort.InferenceSession, Sequence[ort.OrtValue]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Engine:
    """How models are run: execution providers, and threads (0: as many as there are cores)."""

    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    threads: int = 0

    def cores(self) -> int:
        if self.threads:
            return self.threads
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def serialize(model: onnx.ModelProto) -> bytes:
    return bytes(model.SerializeToString(deterministic=True))


def open_session(model: onnx.ModelProto | bytes, engine: Engine) -> ort.InferenceSession:
    """A session for ``model``, one of many: its threads sleep between operators.

    Threads that wait busily, onnxruntime's default, gain a little on an idle machine; the dozens of sessions of a
    refit, each with its own threads, would take the cores from each other and from everybody else.

    Raises:
        ModelError: in one line, where onnxruntime refuses the model.
    """
    options = ort.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return _open(model, engine, options)


def open_timing_session(model: onnx.ModelProto | bytes, engine: Engine) -> ort.InferenceSession:
    """A session as users open it, with onnxruntime's defaults: for measuring time.

    Raises:
        ModelError: in one line, where onnxruntime refuses the model.
    """
    return _open(model, engine, ort.SessionOptions())


def open_literal_session(model: onnx.ModelProto | bytes, engine: Engine) -> ort.InferenceSession:
    """A session that runs the nodes as they are written, and so computes nearly the same numbers on any processor.

    Other sessions fuse and reorder nodes.  Their kernels of 8-bit integers saturate sums of 16 bits on x86 without VNNI.

    Raises:
        ModelError: in one line, where onnxruntime refuses the model.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.x64quantprecision", "1")
    return _open(model, engine, options)


def _open(model: onnx.ModelProto | bytes, engine: Engine, options: ort.SessionOptions) -> ort.InferenceSession:
    telemetry.stop()
    options.intra_op_num_threads = engine.cores()
    options.log_severity_level = 4
    data, arrays = (model, ()) if isinstance(model, bytes) else _handed_over(model, options)
    try:
        session = ort.InferenceSession(data, options, providers=list(engine.providers))
        # Kept for another choice of providers, which never comes: a copy of the model per open session.
        session._model_bytes = None
        if arrays:
            _HELD[session] = arrays
        return session
    except Exception as error:
        raise ModelError(f"onnxruntime cannot load the model: {_first_line(error)}") from error


def _handed_over(model: onnx.ModelProto, options: ort.SessionOptions) -> tuple[bytes, Sequence[ort.OrtValue]]:
    """The model in one piece; of one that protobuf cannot hold in one, without its large arrays, which ``options``
    then carry, and which must live as long as the session."""
    model = _seeded(model)
    size = model_bytes(model)
    if size > HEAVY:
        release_memory()
    if size < ONE_PIECE:
        return serialize(model), ()
    large = {t.name: t for t in model.graph.initializer if len(t.raw_data) >= LARGE}

    def outline(tensor: onnx.TensorProto) -> onnx.TensorProto:
        if tensor.name not in large or large[tensor.name] is not tensor:
            return tensor
        stub = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        stub.data_location = onnx.TensorProto.EXTERNAL
        # A place that is never looked at: the arrays are given by name.
        stub.external_data.add(key="location", value="given")
        return stub

    arrays = [ort.OrtValue.ortvalue_from_numpy(numpy_helper.to_array(tensor)) for tensor in large.values()]
    options.add_external_initializers(list(large), arrays)
    return serialize(map_tensors(model, outline)), arrays


def _seeded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, or a copy with a seed at every node that draws random numbers: two models that differ elsewhere draw
    the same, so that what is measured between them is not chance."""
    if not any(True for _ in _drawing(model.graph)):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in _drawing(copy.graph):
        if not any(attribute.name == "seed" for attribute in node.attribute):
            # Small enough for the attribute's type, float.
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
        ModelError: in one line, where the run fails.
    """
    try:
        return [np.asarray(r) for r in session.run(None if outputs is None else list(outputs), dict(feeds))]
    except Exception as error:
        raise ModelError(f"onnxruntime cannot run the model on this data: {_first_line(error)}") from error


def with_outputs(model: onnx.ModelProto, values: Sequence[str]) -> onnx.ModelProto:
    """A copy whose only outputs are ``values`` (types are left to onnxruntime)."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    del found.graph.output[:]
    for value in values:
        found.graph.output.add().name = value
    return found


def _first_line(error: Exception) -> str:
    text = str(error).strip().replace("\n", " ")
    return text[:400] or type(error).__name__
