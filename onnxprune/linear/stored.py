"""Stored weights as real numbers: quantized weights dequantized."""

from __future__ import annotations

import numpy as np

from onnxprune.coupling.groups import Coupling
from onnxprune.graph.dequantized import SCALING, dequantizes, steps
from onnxprune.graph.uses import Use
from onnxprune.graph.view import Node
from onnxprune.surgery.cut import constant_of, laid_along

Array = np.ndarray


def real_values(coupling: Coupling, use: Use) -> Array | None:
    """One use of a constant as float64.  Applies scale and zero point if quantized; ``None`` for other integers."""
    array = constant_of(coupling, use)
    if array.dtype.kind == "f":
        return array.astype(np.float64)
    node = coupling.graph.nodes[use[0]]
    if node.op == "Cast" and dequantizes(coupling.graph, node):
        return _scaled(coupling, node, array.astype(np.float64))
    bound = coupling.walked.bounds.get(use[0])
    scale = None if bound is None else laid_along(coupling, use, bound.rule.scales.get(use[1]))
    if bound is None or scale is None:
        return None
    shift = laid_along(coupling, use, bound.rule.zeros.get(use[1]))
    wide = array.astype(np.float64)
    return np.asarray((wide if shift is None else wide - shift) * scale)


def _scaled(coupling: Coupling, node: Node, array: Array) -> Array:
    """``array`` after the steps that follow a Cast, up to the first that transposes or has an unknown operand."""
    for step, slot in steps(coupling.graph, node):
        if step.op in SCALING:
            other = (step.index, 1 - slot)
            name = coupling.value_of(other)
            if name not in coupling.facts.values and name not in coupling.graph.constants:
                return array
            operand = constant_of(coupling, other).astype(np.float64)
            array = _COMPUTED[step.op](array, operand)
        elif step.op == "Transpose":
            return array
    return array


_COMPUTED = {"Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}
