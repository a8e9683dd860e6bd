"""What all tests share: one BLAS thread per process, no telemetry, and a block of channels that is pinned."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# The matrices here are small, and several pools on few cores wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Tests import onnxruntime themselves, some before this package.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--block", type=int, default=16, help="channels that kernels compute at once, whatever the CPU")


@pytest.fixture(scope="session", autouse=True)
def block(request: pytest.FixtureRequest) -> Iterator[int]:
    """The block of channels of this machine's kernels, as far as tests see it: no outcome depends on the CPU."""
    from onnxprune.budget.rounding import blocks_like

    chosen = int(request.config.getoption("block"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onnxprune.latency.source.machine_blocks", lambda: blocks_like(chosen))
        yield chosen
