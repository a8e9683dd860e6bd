"""The input of every stage after calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnxprune.calibration.dataset import Dataset
from onnxprune.calibration.row_rule import RowRule
from onnxprune.coupling.groups import Coupling
from onnxprune.engine.session import Engine
from onnxprune.linear.form import Layer
from onnxprune.linear.gram import SecondMoments


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A model, its layers, the second moments of their inputs (by layer index), and samples.

    ``memory`` is the number of bytes of activations to keep in memory; the rest goes to disk.  ``refining`` bounds the
    bytes of one activation in a refinement.  ``rows`` says how many rows a refit samples; ``seed`` determines which.
    """

    coupling: Coupling
    layers: tuple[Layer, ...]
    grams: Mapping[int, SecondMoments]
    dataset: Dataset
    engine: Engine
    memory: int
    refining: int
    rows: RowRule
    seed: int
