"""The call of an operator's torch function, and an entry of the operator table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

Outputs: TypeAlias = "Tensor | tuple[Tensor | None, ...]"


class Unsupported(Exception):
    """The torch function does not support this form of the operator.  The message says which form."""


@dataclass(frozen=True, eq=False)
class Call:
    """One node with its input values.  ``inputs``: by slot, ``None`` if left out.  ``opset``: of the node's domain."""

    op: str
    opset: int
    inputs: tuple[Tensor | None, ...]
    attributes: Mapping[str, object]
    outputs: int = 1

    @property
    def x(self) -> Tensor:
        return self.need(0)

    def get(self, slot: int) -> Tensor | None:
        """The input in ``slot``; ``None`` if it is left out."""
        return self.inputs[slot] if slot < len(self.inputs) else None

    def need(self, slot: int) -> Tensor:
        """The input in ``slot``.

        Raises:
            Unsupported: it is left out.
        """
        value = self.get(slot)
        if value is None:
            raise Unsupported(f"input {slot} is left out")
        return value

    def integer(self, name: str, default: int) -> int:
        value = self.attributes.get(name, default)
        assert isinstance(value, int)
        return value

    def number(self, name: str, default: float) -> float:
        value = self.attributes.get(name, default)
        assert isinstance(value, (int, float))
        return float(value)

    def text(self, name: str, default: str) -> str:
        value = self.attributes.get(name, default)
        assert isinstance(value, str)
        return value

    def integers(self, name: str) -> list[int] | None:
        value = self.attributes.get(name)
        return None if value is None else [int(v) for v in value]  # type: ignore[attr-defined]

    def listed(self, slot: int, name: str) -> list[int] | None:
        """Integers that newer opsets take as an input, and older ones as an attribute."""
        stated = self.integers(name)
        if stated is not None:
            return stated
        given = self.get(slot)
        return None if given is None else whole(given)


@dataclass(frozen=True)
class Entry:
    """The torch function of an operator.

    ``host``: inputs that are read as numbers; they decide the size of the output.
    ``stored``: inputs that are statistics; no gradient reaches them.
    ``chooses``: the node picks places by comparing values (TopK, ArgMax), so two models may pick differently.
    ``data_sized``: the size of the output depends on values.
    ``rounds``: the gradient passes straight through a rounding.  It is not the derivative (Bengio et al., arXiv
    1308.3432).
    """

    run: Callable[[Call], Outputs]
    host: tuple[int, ...] = ()
    stored: tuple[int, ...] = ()
    chooses: bool = False
    data_sized: bool = False
    rounds: bool = False


OperatorTable = Mapping[tuple[str, str], Entry]


def whole(tensor: Tensor) -> list[int]:
    """The numbers of a tensor of any shape."""
    return [int(v) for v in tensor.reshape(-1).tolist()]


def positive_axis(axis: int, rank: int) -> int:
    if not -rank <= axis < max(rank, 1):
        raise Unsupported(f"axis {axis} of a tensor of rank {rank}")
    return axis % rank if rank else 0


def rounded(x: Tensor) -> Tensor:
    """``x`` rounded to the nearest integer, halves to even.  The gradient passes straight through."""
    return x + (torch.round(x) - x).detach() if x.requires_grad else torch.round(x)


def plain(function: Callable[[Tensor], Tensor]) -> Entry:
    """An operator with one input and no attributes."""
    return Entry(lambda call: function(call.x))


def standard(entries: Mapping[str, Entry]) -> dict[tuple[str, str], Entry]:
    return {("", name): entry for name, entry in entries.items()}
