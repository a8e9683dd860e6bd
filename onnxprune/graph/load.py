"""Read an ONNX model from disk, external data included.  Refuse anything else with one clear line."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from onnxprune import telemetry
from onnxprune.errors import ModelError
from onnxprune.graph.bounds import check_bounds
from onnxprune.graph.external import EXTERNAL, load_external
from onnxprune.graph.file import parse_model, read
from onnxprune.graph.inferred import without_wrong_shapes
from onnxprune.graph.opset import runnable
from onnxprune.graph.repair import repaired
from onnxprune.graph.tensors import all_tensors, model_bytes, outlined
from onnxprune.surgeon import Model, from_graph


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory and its source.

    proto: the whole model; no tensor refers to a file; treat it as read-only.
    path: the file it was read from; None for a model given in memory.
    external: whether the file kept tensors in external data files.
    file_bytes: bytes on disk, model file plus external data files (in-memory size without a path).
    complaints: first lines of objections of onnx.checker (full check included) to a model that onnxruntime accepts.
    repairs: what `load` corrected in `proto`, one sentence each; see `repaired` and `without_wrong_shapes`.
    """

    proto: onnx.ModelProto
    path: Path | None
    external: bool
    file_bytes: int
    complaints: tuple[str, ...] = ()
    repairs: tuple[str, ...] = ()


def load(source: Model) -> LoadedModel:
    """Read and check a model.

    Never changes a given ModelProto; copies it only to repair it.  Exports a ``gs.Graph`` first.  Models of more than
    2 GB work with external data.  Cost: one pass over the files; memory: the model plus its largest tensor.

    Raises:
        ModelError: if this is not a complete ONNX model that the installed onnx and onnxruntime support; names file and
            remedy.
    """
    source = from_graph(source)
    if isinstance(source, onnx.ModelProto):
        proto, path, external, file_bytes = source, None, False, model_bytes(source)
        where = "the given model"
        for tensor in all_tensors(proto):
            if tensor.data_location == EXTERNAL:
                raise ModelError(
                    f"{where}: tensor '{tensor.name}' keeps its data in a file; "
                    "give the model's path, or load it with onnx.load(path)"
                )
    else:
        if not isinstance(source, (str, os.PathLike)):
            raise ModelError(f"a model is a path, a ModelProto or an onnx-graphsurgeon graph, not {type(source).__name__}")
        path = Path(source)
        where = str(path)
        data = read(path)
        proto = parse_model(data, where)
        file_bytes = len(data)
        del data
        _check_content(proto, where)
        check_bounds(proto, where)
        data_bytes = load_external(proto, path)
        external = data_bytes is not None
        file_bytes += data_bytes or 0
    _check_content(proto, where)
    if path is None:
        check_bounds(proto, where)
    _check_versions(proto, where)
    proto, converted = runnable(proto, where, lambda model: _runtime_objection(bytes(model.SerializeToString())))
    complaints = _complaints(proto, None if converted else path, external, where)
    proto, repairs = repaired(proto, file_bytes)
    repairs = (*converted, *repairs)
    proto, wrong, objection = without_wrong_shapes(proto)
    if wrong:
        repairs += (f"ignored {wrong} wrong shape{'s' if wrong > 1 else ''} that the file declares",)
    if objection is not None and not complaints:
        complaints = (objection.rstrip("."),)
    return LoadedModel(proto, path, external, file_bytes, complaints, repairs)


def _check_content(proto: onnx.ModelProto, where: str) -> None:
    if not proto.HasField("graph"):
        raise ModelError(f"{where} has no graph: it is not an ONNX model, or only the start of one; export it again")
    if not proto.graph.node:
        raise ModelError(f"{where} has a graph without nodes; export the model again")


def _check_versions(proto: onnx.ModelProto, where: str) -> None:
    if proto.ir_version > onnx.IR_VERSION:
        raise ModelError(
            f"{where} has IR version {proto.ir_version}, but the installed onnx {onnx.__version__} supports only up to "
            f"{onnx.IR_VERSION}; upgrade onnx, or export with an older one"
        )
    newest = onnx.defs.onnx_opset_version()
    opset = max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset > newest:
        raise ModelError(
            f"{where} uses opset {opset}, but the installed onnx {onnx.__version__} supports only up to {newest}; "
            "upgrade onnx, or export with an older opset"
        )
    objection = _runtime_objection(_probe(proto.ir_version, opset or newest))
    if objection is not None:
        import onnxruntime

        raise ModelError(
            f"{where} has IR version {proto.ir_version} and opset {opset}, too new for onnxruntime "
            f"{onnxruntime.__version__} ({objection}); upgrade onnxruntime, or export with an older opset"
        )


def _probe(ir_version: int, opset: int) -> bytes:
    # A model of one Identity with the same versions: loading it takes onnxruntime a millisecond.
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "probe", value[:1], value[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    model.ir_version = max(ir_version, 3)
    return bytes(model.SerializeToString())


def _complaints(proto: onnx.ModelProto, path: Path | None, external: bool, where: str) -> tuple[str, ...]:
    outline = outlined(proto)
    try:
        onnx.checker.check_model(outline)
    except Exception as error:  # the checker throws whatever its C++ side throws
        complaint = _first_line(error)
    else:
        return ()
    # The checker rejects some exporters' files that onnxruntime accepts.  Such a model can be pruned.
    if path is not None:
        objection = _runtime_objection(str(path))
    else:
        try:
            objection = _runtime_objection(bytes(proto.SerializeToString()))
        except (ValueError, DecodeError):  # beyond 2 GB
            objection = _runtime_objection(bytes(outline.SerializeToString()))
    if objection is None:
        return (complaint,)
    raise ModelError(
        f"{where} is not a valid ONNX model: {complaint} (onnxruntime: {objection}); export the model again"
    )


def _runtime_objection(model: str | bytes) -> str | None:
    """The first line of onnxruntime's refusal to load the model; None if it loads."""
    import onnxruntime

    telemetry.stop()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exception classes share no public base
        return _first_line(error)
    return None


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
