"""Every error that onnxprune raises on purpose.

A message names the file, node, tensor or axis at fault and ends with what to do about it.
"""

from __future__ import annotations


class OnnxPruneError(Exception):
    """Base of all errors of this package; the command line turns it into one line and exit code 2."""


class ModelError(OnnxPruneError):
    """The model file cannot be read, is no valid ONNX model, or onnxruntime cannot run it."""


class EndlessError(ModelError):
    """A run of the model was ended because it took too long."""


class DataError(OnnxPruneError):
    """The calibration or test data is missing, unreadable, or does not fit the model's inputs."""


class BudgetError(OnnxPruneError):
    """The budget cannot be met; the message says how far pruning can go."""


class PlanError(OnnxPruneError):
    """A plan is malformed, or belongs to another model."""


class OutputError(OnnxPruneError):
    """The result cannot be written where it was asked for."""


class OptionError(OnnxPruneError):
    """An option has a value that it cannot have; the message names those that it can."""


class VerificationError(OnnxPruneError):
    """The pruned model failed verification; nothing was written (exit code 1)."""


class UsageError(OnnxPruneError):
    """The command line itself is wrong."""
