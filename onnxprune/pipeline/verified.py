"""Verify a cut, or stop the run."""

from __future__ import annotations

import numpy as np
import onnx

from onnxprune.errors import VerificationError
from onnxprune.pipeline.setup import Context
from onnxprune.progress import Progress
from onnxprune.result import Verification
from onnxprune.verify.checks import verify

Array = np.ndarray
#: Calibration samples on which to compare a result with the masked original.
VERIFY_SAMPLES = 4


def verified(context: Context, keep: Array, model: onnx.ModelProto, progress: Progress) -> Verification:
    """The checks of a cut, all passed.

    Raises:
        VerificationError: if a check failed.
    """
    progress.stage("verify", None)
    feeds = next(context.fit.batches(VERIFY_SAMPLES))
    checks = verify(context.coupling, keep, model, context.loaded.complaints, feeds, context.engine)
    if not checks.passed:
        raise VerificationError("the result failed verification and was not written: " + "; ".join(checks.complaints))
    return checks
