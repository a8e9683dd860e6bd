"""A request to any data source."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.calibration.dataset import InputSpec
from onnxprune.calibration.preprocess import Preprocess


@dataclass(frozen=True)
class DataRequest:
    """A request for feeds of these inputs. preprocess: None for the default. samples: None for all."""

    specs: tuple[InputSpec, ...]
    preprocess: Preprocess | None
    samples: int | None
    seed: int
