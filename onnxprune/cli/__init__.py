"""The command line: it only parses and prints.  It imports onnx only when a command needs it."""

from onnxprune.cli.entry import main

__all__ = ["main"]
