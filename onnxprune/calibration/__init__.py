"""What the model is fed and what is learned from feeding it: data sources first, statistics after.

`open_dataset` turns anything a user may point at into a `Dataset` of model-ready feeds.
"""

from onnxprune.calibration.dataset import Dataset, InputSpec
from onnxprune.calibration.open import open_dataset
from onnxprune.calibration.preprocess import Preprocess

__all__ = ["Dataset", "InputSpec", "Preprocess", "open_dataset"]
