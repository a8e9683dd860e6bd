"""What is asked of a data source, whatever the source."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.calibration.dataset import InputSpec
from onnxprune.calibration.preprocess import Preprocess


@dataclass(frozen=True)
class Request:
    """Feeds for these inputs. preprocess: None for a usual one. samples: None for all of them."""

    specs: tuple[InputSpec, ...]
    preprocess: Preprocess | None
    samples: int | None
    seed: int
