"""The command line: parsing and printing only.  Nothing here loads onnx before a command needs it."""

from onnxprune.cli.entry import main

__all__ = ["main"]
