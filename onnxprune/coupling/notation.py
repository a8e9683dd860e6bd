"""The rule notation: how an operator's axes relate, in one line of text.

    n (g i) x.., (g o) i k.., (g o) -> n (g o) y..

Commas separate terms, one per input or output slot.  A term lists the dims of that tensor from the first axis to the
last.  A dim is

* a *factor* name (``n``): positions of equal index belong together wherever the name occurs;
* a *compound* ``(g i)``: the axis runs over all pairs, the last factor fastest;
* ``1``: size one, or broadcast;
* ``x..``: as many dims ``x0 x1 …`` as the tensor's rank leaves room for (at most one per term).

The whole term ``_`` stands for a slot without channels (indices, sizes, scalars).

This module knows nothing about tensors or operators.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

Dim = tuple[str, ...]
Term = tuple[Dim, ...]

_TOKEN = re.compile(r"\s*(?:\(([^()]*)\)|([A-Za-z][A-Za-z0-9]*\.\.)|([A-Za-z][A-Za-z0-9]*)|(1))")
_VARIADIC = ".."


class NotationError(ValueError):
    """A rule string is malformed or does not fit the rank of a tensor."""


@dataclass(frozen=True)
class Pattern:
    """A parsed rule string.  ``None`` stands for a slot without channels."""

    inputs: tuple[Term | None, ...]
    outputs: tuple[Term | None, ...]

    def __str__(self) -> str:
        return f"{_join(self.inputs)} -> {_join(self.outputs)}"


@cache
def parse_pattern(text: str) -> Pattern:
    """Parse a rule string.

    Raises:
        NotationError: if ``text`` is malformed; the message quotes the faulty part.
    """
    sides = text.split("->")
    if len(sides) != 2:
        raise NotationError(f"a rule needs exactly one '->': {text!r}")
    left, right = (tuple(_term(part, text) for part in side.split(",")) for side in sides)
    return Pattern(left, right)


def _term(part: str, text: str) -> Term | None:
    part = part.strip()
    if part == "_":
        return None
    dims: list[Dim] = []
    place = 0
    while place < len(part):
        match = _TOKEN.match(part, place)
        if match is None:
            raise NotationError(f"cannot read {part[place:]!r} in rule {text!r}")
        compound, variadic, name, one = match.groups()
        if compound is not None:
            dims.append(tuple(compound.split()))
        elif one is not None:
            dims.append(())
        else:
            dims.append((variadic or name,))
        place = match.end()
    if sum(is_variadic(d) for d in dims) > 1:
        raise NotationError(f"two variadic dims in {part!r} of rule {text!r}")
    return tuple(dims)


def is_variadic(dim: Dim) -> bool:
    return len(dim) == 1 and dim[0].endswith(_VARIADIC)


def expand(term: Term, rank: int) -> Term:
    """Replace ``x..`` by ``x0 x1 …`` so that the term has ``rank`` dims.

    Raises:
        NotationError: if the term cannot have that rank.
    """
    place = next((k for k, d in enumerate(term) if is_variadic(d)), None)
    if place is None:
        if len(term) != rank:
            raise NotationError(f"'{term_text(term)}' has {len(term)} dims, but the tensor has {rank}")
        return term
    extra = rank - (len(term) - 1)
    if extra < 0:
        raise NotationError(f"'{term_text(term)}' needs at least {len(term) - 1} dims, but the tensor has {rank}")
    stem = term[place][0][: -len(_VARIADIC)]
    return (*term[:place], *(((f"{stem}{k}",)) for k in range(extra)), *term[place + 1 :])


def term_text(term: Term | None) -> str:
    if term is None:
        return "_"
    return " ".join("1" if not d else d[0] if len(d) == 1 else f"({' '.join(d)})" for d in term)


def _join(terms: tuple[Term | None, ...]) -> str:
    return ", ".join(term_text(t) for t in terms)
