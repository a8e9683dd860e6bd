"""What all tests share: one BLAS thread per process, no telemetry, a pinned block of channels, and the kernels forced."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from inspect import signature
from typing import Any

# The matrices here are small, and several pools on few cores wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Tests import onnxruntime themselves, some before this package.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnx
import onnxruntime as ort
import pytest

INTEGERS = {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
# What saturating sums of 16 bits were seen to do to a small network's outputs on a processor without VNNI.
SATURATION = 1e-2
SWITCH = "session.x64quantprecision"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--block", type=int, default=16, help="channels that kernels compute at once, whatever the CPU")
    parser.addoption(
        "--kernels",
        choices=("usual", "precise", "saturating"),
        default="usual",
        help="8-bit kernels: the CPU's own; those that never saturate (a real switch, for CPUs without VNNI); an "
        "emulation, for any CPU, of kernels that saturate",
    )


def pytest_configure() -> None:
    """Take signals as a terminal's child does: nohup and background jobs have them ignored, and children inherit it."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    _take_own_cores(os.environ.get("PYTEST_XDIST_WORKER"), os.environ.get("PYTEST_XDIST_WORKER_COUNT"))


def _take_own_cores(worker: str | None, workers: str | None) -> None:
    """Pin this worker of pytest-xdist to its share of the cores.

    onnxruntime starts one spinning thread per core that a process may use, so workers that share cores wait for each
    other's spinning.  Nothing is pinned where there are fewer cores than workers, or where the system cannot pin.
    """
    if worker is None or workers is None or not hasattr(os, "sched_setaffinity"):
        return
    cores, index, count = sorted(os.sched_getaffinity(0)), int(worker.removeprefix("gw")), int(workers)
    if own := cores[index % count :: count]:
        os.sched_setaffinity(0, own)


@pytest.fixture(scope="session", autouse=True)
def block(request: pytest.FixtureRequest) -> Iterator[int]:
    """The block of channels of this machine's kernels, as far as tests see it: no outcome depends on the CPU."""
    from onnxprune.budget.rounding import blocks_like

    chosen = int(request.config.getoption("block"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onnxprune.latency.source.machine_blocks", lambda: blocks_like(chosen))
        yield chosen


class Saturating:
    """A session of 8-bit layers whose outputs are wrong by as much as saturating kernels', otherwise in each graph."""

    def __init__(self, session: ort.InferenceSession, nodes: int) -> None:
        self.session, self.nodes = session, nodes

    def run(self, names: Sequence[str] | None, feeds: Mapping[str, Any]) -> list[Any]:
        return [self.wrong(np.asarray(found)) for found in self.session.run(names, feeds)]

    def wrong(self, found: np.ndarray) -> np.ndarray:
        if found.dtype.kind != "f":
            return found
        where = np.arange(found.size).reshape(found.shape)
        return (found * (1 + SATURATION * np.sin(where + self.nodes))).astype(found.dtype)


@pytest.fixture(scope="session", autouse=True)
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """The kernels of 8-bit layers, as far as they can be forced."""
    from onnxprune.engine import session
    from onnxprune.engine.loadable import Loadable
    from onnxprune.errors import ModelError
    from onnxprune.verify import checks

    chosen = str(request.config.getoption("kernels"))
    begin, begin_usual = session._open, session.open_session

    def precise(
        model: Any, engine: session.Engine, options: ort.SessionOptions, outputs: Sequence[str] | None = None
    ) -> ort.InferenceSession:
        options.add_session_config_entry(SWITCH, "1")
        try:
            return begin(model, engine, options, outputs)
        except ModelError:
            # onnxruntime 1.32 has no such kernels for QGemm and QLinearAdd of signed integers.
            options.add_session_config_entry(SWITCH, "0")
            return begin(model, engine, options, outputs)

    def saturating(model: Any, engine: session.Engine, outputs: Sequence[str] | None = None) -> Any:
        opened = begin_usual(model, engine, outputs)
        proto = onnx.load_from_string(model.source) if isinstance(model, Loadable) else model
        stored = {tensor.data_type for tensor in proto.graph.initializer}
        return Saturating(opened, len(proto.graph.node)) if stored & INTEGERS else opened

    # Also where neither is chosen: otherwise only the last steps of CI would see that one of them no longer fits.
    for own, replaced in ((precise, begin), (saturating, begin_usual)):
        assert list(signature(own).parameters) == list(signature(replaced).parameters)
    with pytest.MonkeyPatch.context() as patch:
        if chosen == "precise":
            patch.setattr(session, "_open", precise)
        elif chosen == "saturating":
            patch.setattr(checks, "open_session", saturating)
        yield chosen
