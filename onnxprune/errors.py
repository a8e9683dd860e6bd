"""Every error that onnxprune raises on purpose.

A message names the file, node, tensor or axis at fault and ends with what to do about it.
"""

from __future__ import annotations


class OnnxPruneError(Exception):
    """Base of all errors of this package.  The command line turns it into one line and exit code 2."""


class ModelError(OnnxPruneError):
    """The model file cannot be read, is not a valid ONNX model, or onnxruntime cannot run it."""


class EndlessError(ModelError):
    """A run of the model took too long and was stopped."""


class DataError(OnnxPruneError):
    """The calibration or test data is missing, unreadable, or does not fit the model's inputs."""


class BudgetError(OnnxPruneError):
    """The budget cannot be met; the message says how far pruning can go."""


class PlanError(OnnxPruneError):
    """A plan is malformed, or belongs to another model."""


class OutputError(OnnxPruneError):
    """The result cannot be written to the requested place."""


class OptionError(OnnxPruneError):
    """An option has an invalid value; the message names the valid ones."""


class VerificationError(OnnxPruneError):
    """The pruned model failed verification; nothing was written (exit code 1)."""


class UsageError(OnnxPruneError):
    """The command line itself is wrong."""
