"""The user's own metric: a function of a model's session, which gives a score."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune import metrics
from onnxprune.calibration.functions import describe, importing, parse_ref
from onnxprune.engine.session import Engine, open_session, run
from onnxprune.errors import DataError, OnnxPruneError
from onnxprune.result import Drop

Array = np.ndarray
#: The argument of the user's metric: feeds -> outputs by name.
SessionRunner = Callable[[Mapping[str, Array]], dict[str, Array]]


@dataclass(frozen=True, eq=False)
class OwnMetric:
    """The user's metric; higher is better.  Messages call it ``name``."""

    function: Callable[..., object]
    name: str

    def of(self, model: onnx.ModelProto, engine: Engine) -> float:
        """The score of ``model``: a number, or -inf, which is worse than any number.

        Raises:
            DataError: if the metric fails, or returns NaN, infinity or no number.
        """
        session = open_session(model, engine)
        names = [o.name for o in session.get_outputs()]
        try:
            score = self.function(lambda feeds: dict(zip(names, run(session, feeds), strict=True)))
        except OnnxPruneError:
            raise
        except Exception as error:
            raise DataError(f"the metric {self.name} raised {describe(error)}; fix it, or return -inf instead") from error
        if not isinstance(score, (int, float, np.number, np.ndarray)) or np.size(score) != 1:
            raise DataError(f"the metric {self.name} must return a number, got {type(score).__name__}")
        value = float(np.asarray(score).reshape(()))
        # An infinite score would meet any budget.
        if math.isnan(value) or value == math.inf:
            raise DataError(f"{self._returned(value)}, so there is no drop; return a finite number, or -inf")
        return value

    def of_original(self, model: onnx.ModelProto, engine: Engine) -> float:
        """The score of the original, which must be finite.  Raises DataError as :meth:`of` does."""
        value = self.of(model, engine)
        if value == -math.inf:
            raise DataError(
                f"{self._returned(value)} for the original model; your metric may return -inf for a candidate, but not "
                "for the original"
            )
        return value

    def _returned(self, value: float) -> str:
        return f"the metric {self.name} returned {value:g}"


def metric_from(evaluate: object | None) -> OwnMetric | None:
    """The metric ``evaluate``: a function, or its name as in ``--eval``.  None: none.

    Raises:
        DataError: the name has another form, or names no function.
    """
    if evaluate is None:
        return None
    if callable(evaluate):
        return OwnMetric(evaluate, getattr(evaluate, "__name__", "the metric"))
    reference = parse_ref(str(evaluate))
    if reference is None:
        raise DataError(f"--eval takes FILE.py:FUNCTION or package.module:FUNCTION, got '{evaluate}'")
    with importing(reference) as function:
        return OwnMetric(function, str(evaluate))


def own_drop(evaluate: object, before: onnx.ModelProto, after: onnx.ModelProto, samples: int, engine: Engine) -> Drop:
    """How much worse ``after`` is than ``before`` by the user's metric ``evaluate``, a function or its name.

    Raises:
        DataError: if the metric does not exist or fails.
    """
    metric = metric_from(evaluate)
    assert metric is not None
    return Drop(metrics.OWN, metric.of_original(before, engine) - metric.of(after, engine), samples)
