"""One BLAS thread per process: the matrices here are small, and several pools on few cores wait for each other."""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Tests import onnxruntime themselves, some before this package.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
