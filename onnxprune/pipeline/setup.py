"""Everything known before the cut: model, coupling, data, bounds.

Each run makes one :class:`Context`; all later stages read it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from onnx import helper as oh

from onnxprune.budget.cost import original_macs
from onnxprune.calibration.calibrated import Calibrated
from onnxprune.calibration.dataset import Dataset, InputSpec, choose
from onnxprune.calibration.open import open_dataset
from onnxprune.calibration.row_rule import MOMENTS, RowRule
from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.open import couple
from onnxprune.effort import EFFORTS, SAMPLES, samples
from onnxprune.engine.probe import expected_integer
from onnxprune.engine.session import Engine
from onnxprune.errors import ModelError, OptionError
from onnxprune.graph.infer import declared_shape
from onnxprune.graph.inputs import Shapes, input_shapes
from onnxprune.graph.load import LoadedModel
from onnxprune.graph.metadata import picture_size
from onnxprune.graph.view import Graph, view
from onnxprune.linear.form import Layer, layers
from onnxprune.linear.gram import SecondMoments
from onnxprune.linear.threads import claim_buffers
from onnxprune.measure.information import sample_information
from onnxprune.memory import room, used
from onnxprune.options import Options
from onnxprune.pipeline.bounds import Bounds, bounds
from onnxprune.pipeline.group_names import frozen_groups
from onnxprune.pipeline.holdout import MAX_HELD, MAX_JUDGED, divide, held_out
from onnxprune.pipeline.notes import few_samples, reading_notes, rounding_wins, single_sample
from onnxprune.pipeline.untaken import untaken

Array = np.ndarray
#: Maximum training samples of a tuning.
MAX_TUNED = 8192
#: Bytes of activations kept in memory during the refit, if the user sets no limit; the rest goes to disk.  With these,
#: the first seven layers of a residual network of 50 layers with 256 images take 2.1 GB in all; with 3 GiB they take
#: 4.0 GB, and 8 % less time.
DEFAULT_MEMORY = 3 << 28
#: Bytes of one activation that a refinement may use, if the user sets no limit.  It leaves out samples beyond that.
MAP_BYTES = 64 << 20
#: Copies of the weights that a run holds in addition to the model: in the view, in the cut model, and in a session.
COPIES = 3


@dataclass(frozen=True, eq=False)
class Context:
    """The inputs of all later stages.

    ``fit`` and ``holdout`` are disjoint parts of the calibration data.  ``held`` holds the positions of the holdout, see
    :func:`onnxprune.pipeline.holdout.held_out`.  ``spare`` holds all samples that are not held out, ``fit`` and more; it
    is None without tuning.
    """

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


def calibrated(
    context: Context, grams: Mapping[int, SecondMoments], dataset: Dataset, options: Options, rows: RowRule = MOMENTS
) -> Calibrated:
    """The inputs of pricing and refit, on the samples of ``dataset``.  ``rows`` says how many rows a refit fits to."""
    memory = activation_bytes(options)
    engine, refining = context.engine, refining_bytes(options)
    return Calibrated(context.coupling, context.layers, grams, dataset, engine, memory, refining, rows, options.seed)


def specs_of(loaded: LoadedModel) -> tuple[InputSpec, ...]:
    """The inputs that a caller must feed.

    Raises:
        ModelError: if one of them is not a tensor.
    """
    graph, picture = view(loaded.proto), picture_size(loaded.proto)
    specs = []
    for name in graph.inputs:
        kind = graph.types[name]
        if not kind.HasField("tensor_type"):
            raise ModelError(
                f"input '{name}' is not a tensor but a {str(kind.WhichOneof('value')).removesuffix('_type')}, which "
                "onnxprune cannot feed: export the model with tensor inputs"
            )
        shape = declared_shape(kind)
        dtype = np.dtype(oh.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type))
        dims = tuple(d if d is None or d > 0 else None for d in shape) if shape is not None else ()
        specs.append(InputSpec(name, dtype, dims, expected_integer(graph, name), picture))
    return tuple(specs)


def check_inputs(first: LoadedModel, second: LoadedModel, called: tuple[str, str], remedy: str) -> None:
    """Raise ModelError if the two models do not take the same inputs.  ``called``: what to call a model without a file."""
    ours, theirs = ({spec.name: spec.dtype for spec in specs_of(loaded)} for loaded in (first, second))
    if ours != theirs:
        lists = [", ".join(f"'{name}' ({kind})" for name, kind in kinds.items()) or "none" for kinds in (ours, theirs)]
        raise ModelError(
            f"the models take different inputs: {first.path or called[0]} {lists[0]}, "
            f"{second.path or called[1]} {lists[1]}; {remedy}"
        )


def specs_for(loaded: LoadedModel, data: object | None, options: Options) -> tuple[InputSpec, ...]:
    """The inputs for the data: :func:`specs_of` with the shapes that the user states and the batch at which the graph
    runs."""
    chosen = input_shapes(view(loaded.proto), options.shapes, None)
    shapes = options.shapes
    if data is None and options.preprocess is None:
        # Made-up data must have sizes at which the model's operators fit together.
        shapes = {**chosen[0], **options.shapes}
    return _with_batch(_with_shapes(specs_of(loaded), shapes), *chosen, options.shapes)


def engine_of(options: Options) -> Engine:
    return Engine(options.providers, options.threads)


def samples_of(data: object | None, options: Options) -> int | None:
    """Number of samples to open first; None for made-up data: their source decides."""
    return options.samples if options.samples is not None or data is None else SAMPLES


def activation_bytes(options: Options) -> int:
    """Bytes of activations to hold in memory: half of what ``--memory`` leaves.  The other half is for the runs."""
    if options.memory is None:
        return min(DEFAULT_MEMORY, room() // 2)
    return max(0, options.memory - used()) // 2


def refining_bytes(options: Options) -> int:
    """Bytes of one activation in a refinement, which holds about ten, and as much again in sessions.

    Depends only on ``--memory``, not on what is free: the number of samples changes the result.
    """
    return MAP_BYTES if options.memory is None else min(MAP_BYTES, options.memory // 32)


def _check_memory(loaded: LoadedModel, options: Options) -> None:
    """Raise OptionError now if ``--memory`` is too small, rather than after minutes of work."""
    least = used() + COPIES * loaded.file_bytes
    if options.memory is not None and options.memory < least:
        raise OptionError(
            f"--memory {options.memory:,}: the program and copies of this model need at least {least:,} bytes; give more"
        )


def _reopens(data: object) -> bool:
    """Whether opening ``data`` again is cheap and gives the same data: it is not a stream or a function of the user."""
    if isinstance(data, str | os.PathLike):
        return Path(data).expanduser().exists()
    return isinstance(data, Mapping | np.ndarray)


def set_up(
    loaded: LoadedModel, data: object | None, options: Options, held: tuple[int, ...] | None = None
) -> Context:
    """Open the data, couple the model at the data's shapes, hold out some samples: ``held``, if given.

    Cost: if the outputs hold probabilities at several places, one pass of the original over the samples.

    Raises:
        OnnxPruneError: if data or options do not fit the model.
    """
    _check_memory(loaded, options)
    claim_buffers()
    _check_computes(loaded, view(loaded.proto), options)
    specs = specs_for(loaded, data, options)
    first = open_dataset(data, specs, options.preprocess, samples_of(data, options), options.seed)
    sample = {name: array.shape for name, array in first.fetch([0]).items()}
    coupling = couple(loaded.proto, options.shapes, sample, options.rules)
    dataset = _affordable(first, data, specs, options, original_macs(coupling))
    tuning = options.tune is not None
    # Tuning learns from more samples than the refit needs.
    opened = dataset
    if tuning and options.samples is None and _reopens(data):
        opened = open_dataset(data, specs, options.preprocess, MAX_TUNED, options.seed)
    engine = engine_of(options)
    if held is None:
        information = None if data is None else sample_information(coupling, engine, opened)
        held = held_out(opened.count, options.seed, MAX_JUDGED if tuning else MAX_HELD, information)
    fit, holdout = divide(opened, held)
    spare = fit if tuning else None
    if tuning:
        fit = fit.take(choose(fit.count, min(dataset.count, fit.count), options.seed))
    idle = untaken(coupling, engine, (fit, holdout))
    frozen = frozen_groups(coupling, options.exclude, options.only) | idle.groups
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
            *idle.notes,
        ),
        held,
        spare,
    )


def _affordable(
    dataset: Dataset, data: object | None, specs: tuple[InputSpec, ...], options: Options, macs: float
) -> Dataset:
    """As many samples of ``data`` as a model of ``macs`` can afford, unless ``--samples`` sets the number.

    ``dataset`` holds the first of them.
    """
    if options.samples is not None:
        return dataset
    affordable = samples(EFFORTS[options.effort], macs)
    if affordable != SAMPLES and _reopens(data):
        return open_dataset(data, specs, options.preprocess, affordable, options.seed)
    if affordable < dataset.count:
        return dataset.take(choose(dataset.count, affordable, options.seed))
    return dataset


def _check_computes(loaded: LoadedModel, graph: Graph, options: Options) -> None:
    """Raise ModelError if an input of stated size 0 leaves the model nothing to compute."""
    shapes = {name: declared_shape(graph.types[name]) or () for name in graph.inputs}
    empty = [f"axis {axis} of input '{name}'" for name, dims in shapes.items() for axis, d in enumerate(dims) if d == 0]
    if not empty:
        return
    # Some inputs are empty on purpose, such as the cache of a first step.
    coupling = couple(loaded.proto, options.shapes, None, options.rules)
    if not original_macs(coupling):
        raise ModelError(
            f"the model states size 0 for {' and '.join(empty)}, so none of its layers computes anything: export it with "
            "the real size, or a dynamic one"
        )


def _with_shapes(specs: tuple[InputSpec, ...], shapes: Mapping[str, tuple[int, ...]]) -> tuple[InputSpec, ...]:
    """``specs`` with the sizes that ``shapes`` gives to dynamic axes.  Axis 0 stays dynamic: it holds the samples."""
    fixed = []
    for spec in specs:
        given = shapes.get(spec.name)
        if given is not None and len(given) == len(spec.shape):
            dims = tuple(g if k and d is None else d for k, (d, g) in enumerate(zip(spec.shape, given, strict=True)))
            spec = replace(spec, shape=dims)
        fixed.append(spec)
    return tuple(fixed)


def _with_batch(
    specs: tuple[InputSpec, ...], first: Shapes, other: Shapes, stated: Mapping[str, tuple[int, ...]]
) -> tuple[InputSpec, ...]:
    """``specs`` with a fixed batch, if the graph runs at one batch only, or at multiples of one, although its inputs
    declare a dynamic one."""
    fixed = []
    for spec in specs:
        batch, another = (shapes.get(spec.name, ())[:1] for shapes in (first, other))
        if spec.shape and spec.shape[0] is None and spec.name not in stated and (batch == another or batch > (1,)):
            spec = replace(spec, shape=(*batch, *spec.shape[1:]))
        fixed.append(spec)
    return tuple(fixed)
