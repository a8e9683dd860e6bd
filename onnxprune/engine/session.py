"""onnxruntime sessions.  Their errors become errors of this package."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakSet

import numpy as np
import onnx
import onnxruntime as ort

from onnxprune import telemetry
from onnxprune.engine.loadable import Loadable, loadable
from onnxprune.errors import EndlessError, ModelError

Array = np.ndarray
#: Maximum seconds per sample in a model with a Loop, the only operator that may never end, and the environment variable
#: that overrides it.
LOOP_SECONDS, SECONDS_SETTING = 6.0, "ONNXPRUNE_LOOP_SECONDS"
_LOOPING: WeakSet[ort.InferenceSession] = WeakSet()


@dataclass(frozen=True)
class Engine:
    """How models run: execution providers, and the number of threads (0: one per core)."""

    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    threads: int = 0

    def cores(self) -> int:
        if self.threads:
            return self.threads
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_session(
    model: onnx.ModelProto | Loadable, engine: Engine, outputs: Sequence[str] | None = None
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


def open_timing_session(model: onnx.ModelProto, engine: Engine) -> ort.InferenceSession:
    """A session with onnxruntime's defaults, as users open it, for measuring time.

    Raises:
        ModelError: if onnxruntime refuses the model; one line.
    """
    return _open(model, engine, ort.SessionOptions())


def open_literal_session(
    model: onnx.ModelProto | Loadable, engine: Engine, outputs: Sequence[str] | None = None
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
    model: onnx.ModelProto | Loadable, engine: Engine, options: ort.SessionOptions, outputs: Sequence[str] | None = None
) -> ort.InferenceSession:
    telemetry.stop()
    options.intra_op_num_threads = engine.cores()
    options.log_severity_level = 4
    if isinstance(model, Loadable):
        assert outputs is None, "a Loadable has its outputs"
        return _opened(model, engine, options)
    with loadable(lambda: model, outputs) as made:
        try:
            return _opened(made, engine, options)
        except ModelError:
            if outputs is None:
                raise
        # The model itself is fine.  Some fusions of onnxruntime (1.32, x86 without AVX-512) lose a hidden value that is
        # asked for as an output.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        return _opened(made, engine, options)


def _opened(model: Loadable, engine: Engine, options: ort.SessionOptions) -> ort.InferenceSession:
    try:
        # A retry on the same provider would print to stdout and fail again.
        again = int(engine.providers != ("CPUExecutionProvider",))
        session = ort.InferenceSession(model.source, options, providers=list(engine.providers), enable_fallback=again)
    except Exception as error:
        raise ModelError(
            f"onnxruntime cannot load the model: {_first_line(error)}; onnxprune needs a model that onnxruntime can run"
        ) from error
    # onnxruntime keeps a copy of the model per session, to change providers later.  This package never does.
    session._model_bytes = None
    if model.loops:
        _LOOPING.add(session)
    return session


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


def _first_line(error: Exception) -> str:
    text = str(error).strip().replace("\n", " ")
    return text[:400] or type(error).__name__
