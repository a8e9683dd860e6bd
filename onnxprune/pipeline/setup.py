"""Everything that is known before anything is cut: model, coupling, data, and who holds what.

A :class:`Context` is made once per run and read by all later stages.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from onnx import helper as oh

from onnxprune.budget.cost import macs, sizes
from onnxprune.calibration.calibrated import Calibrated
from onnxprune.calibration.dataset import Dataset, InputSpec, choose
from onnxprune.calibration.open import open_dataset
from onnxprune.calibration.row_rule import FIT, MOMENTS
from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.open import couple
from onnxprune.effort import EFFORTS, SAMPLES, samples
from onnxprune.engine.probe import expected_integer
from onnxprune.engine.session import Engine, open_session
from onnxprune.errors import ModelError, OptionError
from onnxprune.graph.infer import declared_shape
from onnxprune.graph.inputs import Shapes, input_shapes
from onnxprune.graph.load import LoadedModel
from onnxprune.graph.view import Graph, view
from onnxprune.linear.form import Layer, layers
from onnxprune.linear.gram import SecondMoments
from onnxprune.measure.said import said
from onnxprune.memory import room, used
from onnxprune.options import Options
from onnxprune.pipeline.bounds import Bounds, bounds
from onnxprune.pipeline.division import MOST_HELD, MOST_JUDGED, divide, held_out
from onnxprune.pipeline.naming import frozen_groups
from onnxprune.pipeline.notes import few_samples, reading_notes, rounding_wins, single_sample

Array = np.ndarray
#: Samples that a tuning is fed at most.
MOST_TUNED = 8192
#: Bytes of activations kept in memory during the refit where the user sets no limit; the rest goes to disk.  The first
#: seven layers of a ResNet-50 with 256 images take 2.1 GB in all with these, and 4.0 GB with 3 GiB; that is 8 % faster.
DEFAULT_MEMORY = 3 << 28
#: Copies of the weights that a run holds beside the model itself: those of the view, the cut model, a session's.
COPIES = 3


@dataclass(frozen=True, eq=False)
class Context:
    """``fit`` and ``holdout`` are disjoint parts of the calibration data.  ``held``: the positions of the holdout, see
    :func:`onnxprune.pipeline.division.held_out`.  ``spare``: where tuning is asked for, all that is not held out,
    ``fit`` and more."""

    loaded: LoadedModel
    coupling: Coupling
    layers: tuple[Layer, ...]
    fit: Dataset
    holdout: Dataset
    engine: Engine
    frozen: frozenset[int]
    bounds: Bounds
    notes: tuple[str, ...]
    held: tuple[int, ...] = ()
    spare: Dataset | None = None


def calibrated(context: Context, grams: Mapping[int, SecondMoments], dataset: Dataset, options: Options) -> Calibrated:
    """What pricing and refit compute with, on the samples of ``dataset``."""
    memory = activation_bytes(options)
    rows = FIT if EFFORTS[options.effort].rounds else MOMENTS
    return Calibrated(context.coupling, context.layers, grams, dataset, context.engine, memory, rows, options.seed)


def specs_of(loaded: LoadedModel) -> tuple[InputSpec, ...]:
    """The inputs that must be fed.

    Raises:
        ModelError: where one of them is no tensor.
    """
    graph = view(loaded.proto)
    found = []
    for name in graph.inputs:
        kind = graph.types[name]
        if not kind.HasField("tensor_type"):
            raise ModelError(
                f"input '{name}' holds no tensor ({str(kind.WhichOneof('value')).removesuffix('_type')}), which cannot "
                "be fed: export the model with tensors for inputs"
            )
        shape = declared_shape(kind)
        dtype = np.dtype(oh.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type))
        dims = tuple(d if d is None or d > 0 else None for d in shape) if shape is not None else ()
        found.append(InputSpec(name, dtype, dims, expected_integer(graph, name)))
    return tuple(found)


def specs_for(loaded: LoadedModel, data: object | None, options: Options) -> tuple[InputSpec, ...]:
    """The inputs as the data must fit them: :func:`specs_of`, with shapes that the user states, and the batch at which
    the graph runs."""
    found = input_shapes(view(loaded.proto), options.shapes, None)
    shapes = options.shapes
    if data is None and options.preprocess is None:
        # Made-up data must have sizes at which the operators of the model fit together.
        shapes = {**found[0], **options.shapes}
    return _with_batch(_with_shapes(specs_of(loaded), shapes), *found, options.shapes)


def engine_of(options: Options) -> Engine:
    return Engine(options.providers, options.threads)


def samples_of(data: object | None, options: Options) -> int | None:
    """How many samples to open at first; None leaves the number to those who make them up."""
    return options.samples if options.samples is not None or data is None else SAMPLES


def activation_bytes(options: Options) -> int:
    """Bytes of activations that may be held in memory now: half of what ``--memory`` leaves, the rest is for running."""
    if options.memory is None:
        return min(DEFAULT_MEMORY, room() // 2)
    return max(0, options.memory - used()) // 2


def _check_memory(loaded: LoadedModel, options: Options) -> None:
    """Raise OptionError now where ``--memory`` cannot do, rather than after minutes of work."""
    least = used() + COPIES * loaded.file_bytes
    if options.memory is not None and options.memory < least:
        raise OptionError(
            f"--memory {options.memory:,}: the program and copies of this model take {least:,} bytes at least; give more"
        )


def _reopens(data: object) -> bool:
    """Whether the same data come when it is opened again, at little cost: no stream, and no function of the user's."""
    if isinstance(data, str | os.PathLike):
        return Path(data).expanduser().exists()
    return isinstance(data, Mapping | np.ndarray)


def set_up(
    loaded: LoadedModel, data: object | None, options: Options, held: tuple[int, ...] | None = None
) -> Context:
    """Open the data, couple the model at the data's shapes, hold out some samples: ``held``, if given.

    Cost: if the outputs hold probabilities at several places, one pass of the original over the samples.

    Raises:
        OnnxPruneError: for data or options that do not fit the model.
    """
    _check_memory(loaded, options)
    _check_computes(loaded, view(loaded.proto), options)
    specs = specs_for(loaded, data, options)
    dataset = open_dataset(data, specs, options.preprocess, samples_of(data, options), options.seed)
    sample = {name: array.shape for name, array in dataset.fetch([0]).items()}
    coupling = couple(loaded.proto, options.shapes, sample, options.rules)
    if options.samples is None:
        worth = samples(EFFORTS[options.effort], macs(coupling)(sizes(coupling)))
        if worth != SAMPLES and _reopens(data):
            dataset = open_dataset(data, specs, options.preprocess, worth, options.seed)
        elif worth < dataset.count:
            dataset = dataset.take(choose(dataset.count, worth, options.seed))
    whole, most = dataset, MOST_HELD
    if options.tune is not None:
        most = MOST_JUDGED
        if options.samples is None and _reopens(data):
            whole = open_dataset(data, specs, options.preprocess, MOST_TUNED, options.seed)
    engine = engine_of(options)
    if held is None:
        told = None if data is None else said(coupling, open_session(loaded.proto, engine), whole)
        held = held_out(whole.count, options.seed, most, told)
    fit, holdout = divide(whole, held)
    spare = None
    if options.tune is not None:
        # Tuning takes all other samples, also if the refit needs few.
        fit, spare = fit.take(choose(fit.count, min(dataset.count, fit.count), options.seed)), fit
    frozen = frozen_groups(coupling, options.exclude, options.only)
    return Context(
        loaded,
        coupling,
        layers(coupling),
        fit,
        holdout,
        engine,
        frozen,
        bounds(coupling, frozen, options),
        (
            *rounding_wins(options),
            *few_samples(dataset, options),
            *single_sample(dataset),
            *dataset.notes,
            *reading_notes(loaded, coupling),
        ),
        held,
        spare,
    )


def _check_computes(loaded: LoadedModel, graph: Graph, options: Options) -> None:
    """Raise ModelError where an input that is stated to be empty leaves the model nothing to compute."""
    shapes = {name: declared_shape(graph.types[name]) or () for name in graph.inputs}
    empty = [f"axis {axis} of input '{name}'" for name, dims in shapes.items() for axis, d in enumerate(dims) if d == 0]
    if not empty:
        return
    # Some are empty by design, such as the cache of a first step.
    coupling = couple(loaded.proto, options.shapes, None, options.rules)
    if not macs(coupling)(sizes(coupling)):
        raise ModelError(
            f"the model states size 0 for {' and '.join(empty)}, so that none of its layers computes anything: export "
            "it with the real size, or a dynamic one"
        )


def _with_shapes(specs: tuple[InputSpec, ...], shapes: Mapping[str, tuple[int, ...]]) -> tuple[InputSpec, ...]:
    """Dims that the user states for dynamic axes bind the data, too; axis 0 stays free (it carries samples)."""
    found = []
    for spec in specs:
        given = shapes.get(spec.name)
        if given is not None and len(given) == len(spec.shape):
            dims = tuple(g if k and d is None else d for k, (d, g) in enumerate(zip(spec.shape, given, strict=True)))
            spec = replace(spec, shape=dims)
        found.append(spec)
    return tuple(found)


def _with_batch(
    specs: tuple[InputSpec, ...], first: Shapes, other: Shapes, stated: Mapping[str, tuple[int, ...]]
) -> tuple[InputSpec, ...]:
    """Where the graph runs at one batch only, or at multiples of one, although its inputs declare a free one, the data
    come in such batches."""
    found = []
    for spec in specs:
        batch, another = (shapes.get(spec.name, ())[:1] for shapes in (first, other))
        if spec.shape and spec.shape[0] is None and spec.name not in stated and (batch == another or batch > (1,)):
            spec = replace(spec, shape=(*batch, *spec.shape[1:]))
        found.append(spec)
    return tuple(found)
