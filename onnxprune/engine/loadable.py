"""Models as onnxruntime takes them: bytes, or a file whose weights the system maps into memory."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import helper as oh

from onnxprune.engine.release import release_memory
from onnxprune.graph.external import write_weights
from onnxprune.graph.tensors import bodies_of, copied, model_bytes
from onnxprune.paths import temporary_files

#: Bytes of a model above which freed memory that is not returned to the system matters.
HEAVY = 1 << 26
#: Models of at least this many bytes go through a file.  onnxruntime parses bytes into a copy of the model, then copies
#: every weight once more: 320 MB of MatMuls took 930 MB, and 330 MB from a file; 190 MB of Convs took 750 and 380 MB.
#: No message of protobuf may exceed 2 GiB.
IN_FILE = 1 << 28
#: Operators that draw random numbers.  They may have a ``seed``.
RANDOM = frozenset(
    ["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"]
)


@dataclass(frozen=True)
class Loadable:
    """``source``: a model's bytes, or the path of its file.  ``loops``: whether it has a Loop, which may never end."""

    source: bytes | str
    loops: bool


def serialize(model: onnx.ModelProto) -> bytes:
    return bytes(model.SerializeToString(deterministic=True))


@contextmanager
def loadable(make: Callable[[], onnx.ModelProto], outputs: Sequence[str] | None = None) -> Iterator[Loadable]:
    """The model of ``make()`` for onnxruntime, with ``outputs`` instead of its own.

    Open sessions inside the context.  They may be used later: a mapped file lasts until its last reader is gone.
    The model of ``make`` is released before; so make large models in it, and keep no other reference to them.

    Raises:
        OutputError: the temporary file of a large model cannot be written.
    """
    with ExitStack() as stack:
        yield _stored(make(), outputs, stack)


def _stored(model: onnx.ModelProto, outputs: Sequence[str] | None, stack: ExitStack) -> Loadable:
    model, loops = _seeded(model), _loops((model.graph.node, *(f.node for f in model.functions)))
    size = model_bytes(model)
    if size > HEAVY:
        release_memory()
    if size < IN_FILE:
        return Loadable(serialize(model if outputs is None else with_outputs(model, outputs)), loops)
    with temporary_files():
        # Windows does not remove a mapped file; there it stays until the system empties the folder.
        temporary = tempfile.TemporaryDirectory(prefix="onnxprune-", ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(temporary))
        with open(folder / "weights", "xb") as file:
            outline, _ = write_weights(model, file, "weights")
        target = folder / "model.onnx"
        target.write_bytes(serialize(outline if outputs is None else with_outputs(outline, outputs)))
    return Loadable(str(target), loops)


def with_outputs(model: onnx.ModelProto, values: Sequence[str]) -> onnx.ModelProto:
    """A copy whose only outputs are ``values``.  onnxruntime infers their types."""
    copy = copied(model)
    del copy.graph.output[:]
    for value in values:
        copy.graph.output.add().name = value
    return copy


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


def _loops(graphs: Iterable[Iterable[onnx.NodeProto]]) -> bool:
    return any(
        node.op_type == "Loop" or _loops(body.node for a in node.attribute for body in bodies_of(a))
        for nodes in graphs
        for node in nodes
    )
