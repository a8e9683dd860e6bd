"""Sequential refit: every linear layer, in graph order, from the pruned network's inputs to the original's outputs.

Two runners walk the original and the pruned graph side by side over all calibration batches.  At each layer whose
input differs from the original's, rows of the pruned input X and of the target Y are sampled; the new weights
minimise ‖XW − Y‖² + λ‖D(W − W₀)‖², where W₀ are the weights folded on the original inputs.  λ is the best of a few
on held-out rows; where no λ beats W₀ and the plain slice there, the better of those two stays.  Because later
layers see the refitted outputs of earlier ones, errors are corrected instead of adding up.

Which elements go on, and how many, where a node picks some (a TopK, a NonMaxSuppression), the original decides for
both: rows that others were picked for have no target.

Layers that share a matrix are given one together (:mod:`onnxprune.refit.shared`).

Where a layer reads a hidden one (:mod:`onnxprune.refit.hidden`), the hidden layer is then refined against what the
reader still misses (:mod:`onnxprune.refit.refine`), and the reader fitted again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from onnxprune.calibration.dataset import Dataset
from onnxprune.calibration.moments import batch_size, row_picks, rows_for
from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.site import Masks
from onnxprune.engine.segment import Runner
from onnxprune.engine.session import Engine
from onnxprune.engine.store import Store
from onnxprune.graph.view import view
from onnxprune.linear.form import Layer, sample_outputs, sample_rows
from onnxprune.linear.gram import SecondMoments, with_constant
from onnxprune.linear.solve import fold
from onnxprune.linear.threads import product_threads
from onnxprune.progress import Progress
from onnxprune.refit.cut_layer import CutLayer
from onnxprune.refit.fit import STRENGTHS, Rows, fit, fit_bias
from onnxprune.refit.free import FreeLayer, chain_function
from onnxprune.refit.hidden import Hidden, stretches
from onnxprune.refit.refine import Goal, Link, Maps, Part, refine
from onnxprune.refit.shared import shared, together
from onnxprune.refit.targets import Target, target_of
from onnxprune.result import Refitted
from onnxprune.surgery.cut import cut
from onnxprune.surgery.edit import Use
from onnxprune.verify.guided import PICKING, choosing

Array = np.ndarray
Chain = Callable[[Array], Array]
FOLD_RIDGE = 1e-3
#: One batch in this many is held out inside the fit, to choose the strength of the ridge.
HOLD_EVERY = 5
#: Per-channel scales below this share of the largest cannot be divided by.
SMALLEST_SCALE = 1e-4
#: Bytes of one activation that a refinement looks at; more samples than these hold are left out.
MAP_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class Refit:
    """New constants per use (pruned shapes), and what each layer's fit was worth."""

    weights: Mapping[Use, Array]
    layers: tuple[Refitted, ...]


def refit(
    coupling: Coupling,
    keep: Array,
    layers: Sequence[Layer],
    grams: Mapping[int, SecondMoments],
    dataset: Dataset,
    engine: Engine,
    memory: int,
    seed: int,
    rounds: int,
    progress: Progress,
) -> Refit:
    """Refit every layer of the cut ``keep``.

    Cost: one pass of the original and one of the pruned model over ``dataset`` (each node runs once per batch),
    plus, per layer, rows·n² for the moments and n³/3 per strength, n = kept inputs · taps; ``rounds`` of
    refinement of the hidden layers cost two more fits and about ten passes of the two layers each.
    """
    pruned = view(cut(coupling, keep))
    biggest = sorted({v for layer in layers for v in (layer.data, layer.output)})
    size = max(1, min(batch_size(coupling, biggest, dataset, budget=1 << 30), -(-dataset.count // 10)))
    size = min(size, dataset.batch_limit) if dataset.batch_limit else size
    with Store(memory) as store:
        batches = list(dataset.batches(size))
        whole = Runner(coupling.graph, coupling.facts, store, "o:", batches, engine)
        small = Runner(pruned, coupling.facts, store, "p:", batches, engine)
        del batches
        work = _Work(coupling, keep, layers, grams, dataset.count, whole, small, seed, rounds)
        progress.stage("refit", len(layers))
        for layer in layers:
            work.layer(layer)
            progress.advance()
    return Refit(work.weights, tuple(work.report))


class _Work:
    def __init__(
        self,
        coupling: Coupling,
        keep: Array,
        layers: Sequence[Layer],
        grams: Mapping[int, SecondMoments],
        samples: int,
        whole: Runner,
        small: Runner,
        seed: int,
        rounds: int,
    ) -> None:
        self.coupling = coupling
        self.grams = grams
        self.samples = samples
        self.whole = whole
        self.small = small
        self.seed = seed
        self.rounds = rounds
        self.weights: dict[Use, Array] = {}
        self.report: list[Refitted] = []
        masks = coupling.masks(keep)
        self.cut = {layer.index: CutLayer(coupling, masks, layer, _groups(small, layer)) for layer in layers}
        self.targets = {layer.index: target_of(coupling, layer, _channels(coupling, layer)) for layer in layers}
        self.places = {layer.index: _places(coupling, masks, layer) for layer in layers}
        self.shared = shared(coupling, layers)
        alone = [layer for layer in layers if layer.index not in self.shared]
        self.hidden = stretches(coupling, alone) if rounds else {}
        self.last_reader = {p.layer.index: index for index, stretch in self.hidden.items() for p in stretch}
        self.picked = choosing(coupling, keep, PICKING)
        self.small.given = frozenset(node.index for node in self.picked)
        self.current: dict[int, Array] = {}
        # Weights folded on the original's inputs, and strengths worth trying.
        self.priors: dict[int, tuple[Array, tuple[float, ...]]] = {}
        for members in dict.fromkeys(self.shared.values()):
            self._fit_together(members)
        self._hold(-1)

    def _hold(self, index: int) -> None:
        """Keep what layers behind node ``index`` will ask for."""
        later = [t for i, t in self.targets.items() if i > index]
        self.picked = tuple(node for node in self.picked if node.index > index)
        self.whole.held = {t.value for t in later} | {o for node in self.picked for o in node.outputs if o is not None}
        self.small.held = {t.other for t in later if t.other is not None}
        self.small.held |= {pair.layer.data for i, stretch in self.hidden.items() if i > index for pair in stretch}

    def layer(self, layer: Layer) -> None:
        target = self.targets[layer.index]
        self.whole.advance(max(target.until + 1, layer.index))
        self.small.replaced = self.weights
        for value in (o for node in self.picked if node.index < layer.index for o in node.outputs if o is not None):
            for batch in range(self.small.count):
                self.small.put(value, batch, self.whole.get(value, batch))
        self.small.advance(layer.index)
        if self.small.has(layer.data) and self.whole.has(target.value):
            fitted = self._fit(layer, target)
            if fitted is not None and self.hidden.get(layer.index):
                fitted = self._refine(self.hidden[layer.index], fitted)
            if fitted is not None:
                self.report.append(fitted)
            self.priors.pop(layer.index, None)
        self._hold(layer.index)

    def _fit_together(self, members: Sequence[Layer]) -> None:
        parts = [self.cut[layer.index] for layer in members]
        grams = [self.grams[layer.index] for layer in members if layer.index in self.grams]
        if not parts or len(grams) < len(parts) or parts[0].kept_inputs.all():
            return
        if len({(part.groups, part.kept_inputs.tobytes(), part.kept_outputs.tobytes()) for part in parts}) > 1:
            return
        if parts[0].groups < members[0].groups():
            # Of a depthwise layer whole groups go, and no other makes up for them.
            return
        free = [_constant(layer, self.targets[layer.index]) > 0 for layer in members]
        for part, weights in zip(parts, together(parts, grams, free, FOLD_RIDGE), strict=True):
            self._keep(part, self.targets[part.layer.index], weights)

    def _fit(self, layer: Layer, target: Target) -> Refitted | None:
        """Fit ``layer`` on its inputs as they are now; ``None`` where nothing before it was changed, or where its rows
        are not those of the original."""
        part = self.cut[layer.index]
        base = part.base()
        # A layer fitted again keeps what it has where the new fit is no better than the plain slice.
        self.current.setdefault(layer.index, base)
        scale = target.scale[part.kept_outputs]
        usable = np.abs(scale) > SMALLEST_SCALE * max(float(np.abs(scale).max(initial=0.0)), 1e-30)
        rows = self._rows(part, target, np.where(usable, scale, 1.0), base.shape[1] - 1)
        if rows is None:
            return None
        train, test = rows
        if layer.index in self.shared:
            settled = fit_bias(train, test, base, self.current[layer.index], part.seen(target.window))
            if settled.accepted:
                usual = self.current[layer.index]
                self._keep(part, target, np.where(usable.reshape(part.groups, 1, -1), settled.weights, usual))
            return Refitted(layer.node.label, settled.before, settled.after, True) if settled.before else None
        with product_threads(base.shape[1]):
            if layer.index not in self.priors:
                self.priors[layer.index] = self._folded(part, base, train.constant), STRENGTHS
            prior, strengths = self.priors[layer.index]
            found = fit(train, test, base, prior, part.seen(target.window), strengths)
            self.priors[layer.index] = prior, found.strengths
        if found.before == 0.0:
            return None
        if found.accepted:
            best = np.where(usable.reshape(part.groups, 1, -1), found.weights, base)
            self._keep(part, target, best)
        return Refitted(layer.node.label, found.before, found.after, found.accepted)

    def _keep(self, part: CutLayer, target: Target, weights: Array) -> None:
        self.current[part.layer.index] = weights
        found = dict(part.constants(weights, target.home))
        if part.layer.index in self.shared and np.array_equal(found[part.weight_use], part.sliced(part.weight_use)):
            # Who else reads it keeps reading the same.
            del found[part.weight_use]
        self.weights.update(found)

    def _rows(self, part: CutLayer, target: Target, scale: Array, features: int) -> tuple[Rows, Rows] | None:
        """Rows to fit on and rows held out, from all batches; ``None`` where data that decide how many there are
        decided otherwise behind the cut."""
        layer = part.layer
        shift = target.shift[part.kept_outputs].astype(np.float32)
        rows_wanted = rows_for(part.groups, features)
        parts: tuple[list[tuple[Array, Array, Array]], ...] = ([], [])
        for batch in range(self.small.count):
            x = self.small.get(layer.data, batch)
            y = self._wanted(layer, target, batch)
            if math.prod(_places_of(layer, x)) != math.prod(_places_of(layer, y)):
                return None
            picks, geo = row_picks(self.coupling, layer, x, y.shape, rows_wanted, self.samples, self.seed + batch)
            rows = sample_rows(layer, x, geo, picks, part.groups).reshape(-1, part.groups, features)
            wanted = sample_outputs(layer, y, geo, picks)[:, part.kept_outputs]
            offset = np.broadcast_to(shift, wanted.shape)
            if target.other is not None:
                offset = offset + sample_outputs(layer, self.small.get(target.other, batch), geo, picks)
            parts[_held_out(batch)].append((rows, wanted, offset))
        light = scale.astype(np.float32)
        made = []
        for column in parts:
            if column:
                x, wanted, offset = (np.concatenate(c) for c in zip(*column, strict=True))
                made.append(Rows(x, wanted, offset, light, _constant(layer, target)))
        return made[0], made[-1]

    def _wanted(self, layer: Layer, target: Target, batch: int) -> Array:
        """The original's activation at the places that the pruned model still has."""
        found = self.whole.get(target.value, batch)
        for axis, kept in self.places[layer.index]:
            found = np.compress(kept, found, axis=axis)
        return found

    def _folded(self, part: CutLayer, base: Array, constant: float) -> Array:
        """W₀: all of the original weights, folded onto the kept inputs with the original's moments.

        ``constant``: see :class:`onnxprune.refit.fit.Rows`.
        """
        gram = self.grams.get(part.layer.index)
        full = part.full()
        if gram is None or full.shape[0] != base.shape[0] or full.shape[1] == base.shape[1]:
            return base
        taps = (full.shape[1] - 1) // len(part.kept_inputs)
        alive = np.flatnonzero(np.append(np.repeat(part.kept_inputs, taps), True))
        outs = part.kept_outputs.reshape(full.shape[0], -1)
        found = np.empty_like(base)
        for g in range(full.shape[0]):
            found[g] = fold(with_constant(gram.of(g), constant), full[g][:, outs[g]], alive, FOLD_RIDGE)
        return found

    # -- hidden layers --------------------------------------------------------------------------------------

    def _refine(self, stretch: Sequence[Hidden], fitted: Refitted) -> Refitted:
        """Alternate: each hidden layer takes its steps, the nearest first, then their reader is fitted again."""
        reader = stretch[0].reader
        target = self.targets[reader.index]
        stretch = list(takewhile(lambda p: p.layer.index in self.current and self.small.has(p.layer.data), stretch))
        chains = [self._chain(pair) for pair in stretch]
        for _ in range(self.rounds):
            # A reader that is hidden itself leaves to its own reader what that can see.
            better = [
                self._stepped(stretch[: k + 1], chains[: k + 1], target)
                for k, pair in enumerate(stretch)
                if self.last_reader[pair.layer.index] == reader.index
            ]
            if not any(better):
                break
            again = self._fit(reader, target)
            if again is not None:
                fitted = Refitted(fitted.node, fitted.before, again.after, fitted.accepted or again.accepted)
        return fitted

    def _stepped(self, stretch: Sequence[Hidden], chains: Sequence[Chain], target: Target) -> bool:
        """Refine the farthest hidden layer of ``stretch``, and bring what reads it up to date."""
        layer, reader = stretch[-1].layer, stretch[0].reader
        links = [Link(chain, self._part(pair.reader)) for pair, chain in zip(stretch[::-1], chains[::-1], strict=True)]
        scale = target.scale[self.cut[reader.index].kept_outputs].astype(np.float32)
        goal = Goal(scale, self.cut[reader.index].seen(target.window), _constant(layer, self.targets[layer.index]))
        hidden = self._part(layer)
        better = refine(hidden, links, goal, *self._maps(layer, reader, target))
        if better is None:
            return False
        self._keep(self.cut[layer.index], self.targets[layer.index], better)
        for batch in range(self.small.count):
            output = hidden.forward(self.small.get(layer.data, batch), better)
            for pair, link in zip(stretch[::-1], links, strict=True):
                inner = link.chain(output)
                self.small.put(pair.reader.data, batch, inner)
                if pair.reader is not reader:
                    output = link.reader.forward(inner, link.reader.weights)
        return True

    def _part(self, layer: Layer) -> Part:
        free = FreeLayer(self.small.graph, layer, self.small.engine)
        return Part(free, self.current[layer.index], self.cut[layer.index].stored, _axis(layer))

    def _chain(self, pair: Hidden) -> Chain:
        graph, engine = self.small.graph, self.small.engine
        return chain_function(graph, pair.chain, pair.layer.output, pair.reader.data, self.small.constant, engine)

    def _maps(self, layer: Layer, reader: Layer, target: Target) -> tuple[list[Maps], list[Maps]]:
        """Whole activations to step on and to search the steps' lengths on."""
        second = self.cut[reader.index]
        shift = target.shift[second.kept_outputs].astype(np.float32)
        parts: tuple[list[Maps], list[Maps]] = ([], [])
        room = [MAP_BYTES, MAP_BYTES // 4]
        for batch in range(self.small.count):
            x = self.small.get(layer.data, batch)
            wanted = self._wanted(reader, target, batch)
            side = _held_out(batch)
            if parts[side] and room[side] < max(x.nbytes, wanted.nbytes):
                continue
            room[side] -= max(x.nbytes, wanted.nbytes)
            wanted = np.compress(second.kept_outputs, wanted, axis=_axis(reader) % wanted.ndim)
            shape = [1] * wanted.ndim
            shape[_axis(reader)] = len(shift)
            offset = shift.reshape(shape)
            if target.other is not None:
                offset = offset + self.small.get(target.other, batch)
            parts[side].append(self._map(layer, x, wanted, offset, batch))
        return parts[0], parts[1] or parts[0]

    def _map(self, layer: Layer, x: Array, wanted: Array, offset: Array, batch: int) -> Maps:
        groups, count, _ = self.current[layer.index].shape
        shape = (len(x), *self.coupling.facts.shapes[layer.output][1:])
        picks, geo = row_picks(
            self.coupling, layer, x, shape, rows_for(groups, count - 1), self.samples, self.seed + batch
        )
        rows = sample_rows(layer, x, geo, picks, groups)
        return Maps(x, wanted, offset, rows, lambda output: sample_outputs(layer, output, geo, picks))


def _held_out(batch: int) -> int:
    return int(batch % HOLD_EVERY == HOLD_EVERY - 1)


def _constant(layer: Layer, target: Target) -> float:
    """1 where a bias has a place, else 0."""
    return 0.0 if layer.bias_slot is None and target.home is None else 1.0


def _axis(layer: Layer) -> int:
    return -1 if layer.kind == "matmul" else 1


def _places_of(layer: Layer, array: Array) -> tuple[int, ...]:
    """The axes of an input or output along which its rows lie; of convolutions, without those of space."""
    return array.shape[:-1] if layer.kind == "matmul" else array.shape[:1]


def _places(coupling: Coupling, masks: Masks, layer: Layer) -> list[tuple[int, Array]]:
    """Axes of the output, other than the channels', that lose positions: heads in a batch axis, say; what stays."""
    rank = len(coupling.facts.shapes[layer.output])
    found = [(axis, masks(layer.output, axis)) for axis in range(rank) if axis != _axis(layer) % rank]
    return [(axis, kept) for axis, kept in found if not kept.all()]


def _groups(small: Runner, layer: Layer) -> int:
    return small.graph.nodes[layer.index].integer("group", 1) if layer.kind != "matmul" else 1


def _channels(coupling: Coupling, layer: Layer) -> int:
    return coupling.facts.shapes[layer.output][_axis(layer)]
