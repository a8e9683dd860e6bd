"""Calibration: the data sources, and the statistics of the original on their samples.

`open_dataset` turns any data source of the user into a `Dataset` of model-ready feeds.
"""

from onnxprune.calibration.dataset import Dataset, InputSpec
from onnxprune.calibration.open import open_dataset
from onnxprune.calibration.preprocess import Preprocess

__all__ = ["Dataset", "InputSpec", "Preprocess", "open_dataset"]
