"""The output loss: the share of what the original's outputs say that the pruned model's outputs no longer say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.coupling.groups import Coupling
from onnxprune.measure.fields import Field, fields_of

Array = np.ndarray
#: Probabilities nearer than this to 0 or 1 are not told apart.
SMOOTH = 0.02
SURE = 0.5
LEAST_SPREAD = 0.05
SEVERAL = 4


@dataclass(frozen=True, eq=False)
class Part:
    output: int
    axis: int | None
    channels: Array | slice
    original: Array  # (S, C, P) smoothed where probabilities
    null: Array  # broadcastable, what a guess would be
    weight: Array | None  # (S, 1, P)


@dataclass(frozen=True, eq=False)
class Kind:
    name: str
    form: str
    parts: tuple[Part, ...]
    whole: Array  # free: per channel denominators (C,); else scalar


def view(array: Array, axis: int | None, channels: Array | slice) -> Array:
    if axis is None:
        return array.reshape(len(array), 1, -1)
    moved = np.moveaxis(array, axis, 1)[:, channels]
    return moved.reshape(*moved.shape[:2], -1)


def _as_slice(channels: Array) -> Array | slice:
    first, last = int(channels[0]), int(channels[-1])
    return slice(first, last + 1) if last - first + 1 == len(channels) else channels


def form_of(values: Sequence[Array], squashed: bool) -> str:
    low = min(float(v.min()) for v in values)
    high = max(float(v.max()) for v in values)
    if not squashed or low < -1e-4 or high > 1 + 1e-4:
        return "free"
    if values[0].shape[1] > 1 and all(np.allclose(v.sum(axis=1), 1, atol=1e-3) for v in values):
        return "simplex"
    undecided = np.mean([float((4 * v * (1 - v)).mean()) for v in values])
    return "unit" if undecided < SURE else "free"


def smooth(values: Array, form: str, eps: float) -> Array:
    if form == "simplex":
        return (np.clip(values, 0, 1) + np.float32(eps)) / np.float32(1 + eps * values.shape[1])
    return np.float32(eps) + np.float32(1 - 2 * eps) * np.clip(values, 0, 1)


def divergence(a: Array, b: Array, form: str) -> Array:
    if form == "simplex":
        return a * np.log(a / b)
    return a * np.log(a / b) + (1 - a) * np.log((1 - a) / (1 - b))


class OutputLoss:
    def __init__(self, coupling: Coupling, names: Sequence[str], reference: Sequence[Array], eps: float = SMOOTH, weighted: bool = True) -> None:
        self.eps = eps
        groups: dict[object, list[Field]] = {}
        for f in fields_of(coupling, names):
            a = reference[f.output]
            key = (len(f.channels), f.axis, a.ndim, f.squashed)
            mine = groups.setdefault(key, [])
            places = {reference[g.output].size // len(reference[g.output]) for g in mine}
            if a.size // len(a) in places:
                key = (*key, f.output, f.makers)
                mine = groups.setdefault(key, [])
            mine.append(f)
        forms, raw = {}, {}
        for key, fs in groups.items():
            vs = [view(reference[f.output], f.axis, _as_slice(f.channels)) for f in fs]
            raw[key] = vs
            forms[key] = form_of(vs, fs[0].squashed)
        kinds, info = [], {}
        for key, fs in groups.items():
            form = forms[key]
            if form == "free":
                continue
            a = [smooth(v, form, eps) for v in raw[key]]
            count = sum(x.shape[0] * x.shape[2] for x in a)
            null = sum(x.sum(axis=(0, 2), dtype=np.float64) for x in a) / count
            null = null.astype(np.float32)[None, :, None]
            total, parts = 0.0, []
            for f, x in zip(fs, a):
                d = divergence(x, null, form).sum(axis=1, keepdims=True)
                where = x.shape[0], x.shape[2]
                info[where] = info.get(where, 0) + d
                total += float(d.sum(dtype=np.float64))
                parts.append(Part(f.output, f.axis, _as_slice(f.channels), x, null, None))
            kinds.append(Kind(str([names[f.output] for f in fs]) + str(len(fs[0].channels)), form, tuple(parts), np.asarray(max(total, 1e-12))))
        for key, fs in groups.items():
            if forms[key] != "free":
                continue
            parts, spread, size = [], 0.0, 0.0
            wsum = 0.0
            for f, x in zip(fs, raw[key]):
                w = info.get((x.shape[0], x.shape[2])) if weighted else None
                if len(x) >= SEVERAL:
                    null = x.mean(axis=0, keepdims=True)
                elif x.shape[2] >= SEVERAL:
                    null = x.mean(axis=(0, 2), keepdims=True)
                else:
                    null = np.zeros_like(x[:1])
                ww = np.ones((1, 1, 1), np.float32) if w is None else w
                spread = spread + np.sum(np.square(x - null) * ww, axis=(0, 2), dtype=np.float64)
                size = size + np.sum(np.square(x) * ww, axis=(0, 2), dtype=np.float64)
                parts.append(Part(f.output, f.axis, _as_slice(f.channels), x, null, w))
            floor = LEAST_SPREAD**2 * size
            whole = np.maximum(spread + floor, 1e-6 * (spread.mean() + 1e-30))
            kinds.append(Kind(str([names[f.output] for f in fs]) + str(len(fs[0].channels)), "free", tuple(parts), whole))
        self.kinds = kinds

    def each(self, outputs: Sequence[Array]) -> list[float]:
        found = []
        for kind in self.kinds:
            total = 0.0
            for p in kind.parts:
                x = view(outputs[p.output], p.axis, p.channels)
                if kind.form == "free":
                    e = np.square(x - p.original)
                    if p.weight is not None:
                        e *= p.weight
                    total = total + e.sum(axis=(0, 2), dtype=np.float64)
                else:
                    total = total + divergence(p.original, smooth(x, kind.form, self.eps), kind.form).sum(dtype=np.float64)
            found.append(float(np.mean(total / kind.whole)))
        return found
