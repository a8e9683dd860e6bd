"""The public functions: prune, apply, inspect, compare, why - the pipeline, top to bottom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

import onnxprune.report.notebook  # noqa: F401  (teaches results how a notebook shows them)
from onnxprune.allowance import allowance
from onnxprune.budget.cost import count_parameters, macs, sizes
from onnxprune.calibration.open import open_dataset
from onnxprune.calibration.preprocess import Preprocess
from onnxprune.cluster.open import computing
from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.open import couple
from onnxprune.coupling.why import why as explain
from onnxprune.errors import PlanError
from onnxprune.graph.load import LoadedModel, load
from onnxprune.graph.save import check_writable, save
from onnxprune.graph.view import view
from onnxprune.latency.operators import operator_times
from onnxprune.latency.signature import timed_layers
from onnxprune.latency.synthetic import layers_file
from onnxprune.linear.form import layers
from onnxprune.options import AUTO, Options
from onnxprune.pipeline.allocation import plan_of
from onnxprune.pipeline.evaluator import evaluator_for
from onnxprune.pipeline.labelled import labelled_data, usable
from onnxprune.pipeline.notes import UNFITTED, loosening_notes, reading_notes
from onnxprune.pipeline.run import Outcome, run, verified
from onnxprune.pipeline.settle import evaluation_notes, seen, settled
from onnxprune.pipeline.setup import check_inputs, engine_of, samples_of, set_up, specs_of
from onnxprune.pipeline.stopwatch import Stopwatch
from onnxprune.pipeline.tuned import tune_pair, tuned
from onnxprune.plan import Plan, fingerprint, keep_vector
from onnxprune.progress import Progress, Silent
from onnxprune.report.account import account, closed, side_by_side
from onnxprune.report.describe import (
    choice_lines,
    group_rows,
    operator_shares,
    outlook,
    prunable_share,
)
from onnxprune.report.outline import layer_rows
from onnxprune.result import Comparison, Inspection, OperatorTime, Report, Result, Tuned
from onnxprune.surgeon import Model
from onnxprune.surgery.cut import cut
from onnxprune.surgery.sweep import sweep
from onnxprune.target import Budget, Kind, Width
from onnxprune.tuning.need import need_device

Array = np.ndarray


def prune(
    model: Model,
    data: object | None = None,
    *,
    macs: float | None = None,
    params: float | None = None,
    size: float | None = None,
    latency: float | None = None,
    max_drop: float | None = None,
    samples: int | None = None,
    preprocess: str | Preprocess | None = None,
    select: str = AUTO,
    refit: str = "lstsq",
    effort: str = "default",
    round_to: int | None = None,
    block: int | None = None,
    latency_table: str | Path | None = None,
    exclude: tuple[str, ...] = (),
    only: tuple[str, ...] = (),
    keep: Mapping[str, float | int] | None = None,
    at_least: Mapping[str, float | int] | None = None,
    at_most: Mapping[str, float | int] | None = None,
    target: str | None = None,
    evaluate: object | None = None,
    test: object | None = None,
    providers: tuple[str, ...] = ("CPUExecutionProvider",),
    threads: int = 0,
    memory: int | None = None,
    seed: int = 0,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    rules: str = "exact",
    tune: str | None = None,
    augment: str = "auto",
    device: str = "auto",
    task: str = AUTO,
    layout: str = "",
    pictures: int = 4,
    workers: int = 0,
    cluster: str | None = None,
    progress: Progress | None = None,
) -> Result:
    """Prune ``model`` and verify the result; nothing is written.

    ``model`` is a file, a ModelProto or an onnx-graphsurgeon graph, here as everywhere; it is never changed.
    ``data`` is anything that ``--data`` takes, or an iterable of {input name: array}.  All budgets hold in the result:
    the fraction kept of ``macs``, ``params``, ``size`` (or bytes) or ``latency``, and the largest ``max_drop`` in the
    task's terms (default 0.01 for classes and strings, 0.02 for embeddings, 0.05 else).
    ``keep``, ``at_least``, ``at_most``: glob to channels kept, a share (float) or a count (int).
    The other options are those of the command line (:class:`onnxprune.options.Options`).

    Raises:
        OnnxPruneError: a subclass per kind of problem; :class:`VerificationError` where the result is not sound.

    >>> result = prune("models/demo.onnx", "models/calib.npz", macs=0.7, preprocess="unit", samples=64)
    >>> result.report.macs.ratio <= 0.7 and result.report.verify.passed
    True
    >>> [(cut.group, cut.before, len(cut.kept)) for cut in result.plan.cuts if cut.before <= len(cut.kept)]
    []
    """
    asked: dict[Kind, float | None] = {"macs": macs, "params": params, "size": size, "latency": latency, "max_drop": max_drop}
    options = Options(
        budgets=tuple(Budget(kind, value) for kind, value in asked.items() if value is not None),
        samples=samples,
        preprocess=Preprocess.named(preprocess) if isinstance(preprocess, str) else preprocess,
        select=select,
        refit=refit,
        effort=effort,
        round_to=round_to,
        block=block,
        latency_table=None if latency_table is None else Path(latency_table),
        exclude=exclude,
        only=only,
        keep=_widths(keep),
        at_least=_widths(at_least),
        at_most=_widths(at_most),
        target=target,
        evaluate=evaluate,
        test=test,
        providers=providers,
        threads=threads,
        memory=memory,
        seed=seed,
        shapes=dict(shapes or {}),
        rules=rules,
        tune=None if tune is None else allowance(tune),
        augment=augment,
        device=device,
        task=task,
        layout=layout,
        pictures=pictures,
        workers=workers,
        cluster=cluster,
    )
    return _prune(model, None, data, options, progress or Silent(), Stopwatch())


def _widths(given: Mapping[str, float | int] | None) -> tuple[Width, ...]:
    return tuple(Width(glob, amount) for glob, amount in (given or {}).items())


def prune_file(
    path: Path, output: Path, data: object | None, options: Options, progress: Progress, stopwatch: Stopwatch
) -> Result:
    """Prune the file ``path`` and write the result to ``output``, whole or not at all."""
    check_writable(output, path)
    return _prune(path, output, data, options, progress, stopwatch)


def _prune(
    model: str | Path | onnx.ModelProto,
    target: Path | None,
    data: object | None,
    options: Options,
    progress: Progress,
    stopwatch: Stopwatch,
) -> Result:
    if options.tune is not None:
        need_device(options.device)
    loaded = load(model)
    stopwatch.mark("load")
    with computing(loaded, data, options) as compute:
        context = set_up(loaded, data, options)
        # Wrong data, or a metric that fails, must show before anything that takes long.
        evaluator = evaluator_for(context, options)
        options = settled(options, evaluator, data)
        labelled, unusable = usable(labelled_data(options, context.holdout), evaluator, options)
        notes = (*context.notes, *unusable, *evaluation_notes(evaluator, labelled, data, options))
        context = replace(context, notes=notes)
        for note in notes:
            progress.note(note)
        stopwatch.mark("couple")
        outcome = run(context, evaluator, options, progress, stopwatch, compute)
    if options.tune is not None:
        if target is not None:
            # Whoever ends the run from here on loses nothing but the tuning.
            save(outcome.model, target, loaded.external)
        outcome = tuned(context, outcome, evaluator, labelled, options, progress)
        stopwatch.mark("tune")
    progress.stage("measure", None)
    report = account(context, outcome, labelled, seen(evaluator, data), target, options, stopwatch)
    written = None if target is None else save(outcome.model, target, loaded.external)
    plan = plan_of(context, outcome.keep, outcome.rounding, options)
    return Result(outcome.model, plan, closed(report, written, stopwatch), target)


def tune(
    student: Model,
    teacher: Model,
    data: object,
    *,
    length: str = "auto",
    samples: int | None = None,
    preprocess: str | Preprocess | None = None,
    augment: str = "auto",
    device: str = "auto",
    test: object | None = None,
    providers: tuple[str, ...] = ("CPUExecutionProvider",),
    threads: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Tuned:
    """Train ``student``'s weights until it answers more like ``teacher``; nothing but weights changes, nothing is written.

    The two take the same inputs and share outputs by name: a pruned model and its original, cut by anybody.  ``data``
    needs no labels: the teacher's answers are the labels.  ``length``: a time ("10m"), passes over the data ("20x"), or
    "auto": until held-out samples gain nothing more, ten minutes at most.  ``augment`` and ``device``: see
    :class:`onnxprune.options.Options`.  Needs torch: ``pip install 'onnxprune[tune]'``.

    Raises:
        OnnxPruneError: a subclass per kind of problem; OptionError where torch is missing.
    """
    options = Options(
        samples=samples,
        preprocess=Preprocess.named(preprocess) if isinstance(preprocess, str) else preprocess,
        tune=allowance(length),
        augment=augment,
        device=device,
        test=test,
        providers=providers,
        threads=threads,
        seed=seed,
    )
    return tune_pair(load(student), load(teacher), data, options, progress or Silent())


def tune_file(
    path: Path, teacher: Path, output: Path | None, data: object, options: Options, progress: Progress
) -> Tuned:
    """Tune the file ``path`` and write the result to ``output``, whole or not at all; ``None``: nowhere."""
    if output is not None:
        check_writable(output, path)
    loaded = load(path)
    tuned = tune_pair(loaded, load(teacher), data, options, progress)
    if output is not None:
        save(tuned.model, output, loaded.external)
    return replace(tuned, path=output)


# -- plans ------------------------------------------------------------------------------------------------------


def apply(model: Model, plan: Plan | str | Path) -> onnx.ModelProto:
    """Replay the cuts of ``plan`` on ``model``: the same channels, without a refit (a plan holds no weights).

    Raises:
        PlanError: where the plan does not belong to the model.

    >>> from onnxprune.plan import Cut, Plan, fingerprint
    >>> model = onnx.load("models/demo.onnx")
    >>> plan = Plan(fingerprint(model), (Cut("/stem/conv/Conv", 16, tuple(range(8))),))
    >>> inspect(apply(model, plan)).groups[0].before
    8
    """
    loaded, read = load(model), plan if isinstance(plan, Plan) else Plan.read(plan)
    return _applied(loaded, couple(loaded.proto, {}, None, read.rules), read)[0]


def apply_file(
    path: Path, plan: Path, output: Path, options: Options, progress: Progress, stopwatch: Stopwatch
) -> Report:
    """Replay a plan on a file, verify, write the result to ``output``, whole or not at all.

    Raises:
        PlanError: where the plan does not belong to the model.
    """
    check_writable(output, path)
    read, loaded = Plan.read(plan), load(path)
    stopwatch.mark("load")
    context = set_up(loaded, None, replace(options, rules=read.rules))
    # Made-up inputs only serve to run the result.
    context = replace(context, notes=(*reading_notes(context.loaded, context.coupling), UNFITTED))
    stopwatch.mark("couple")
    model, keep = _applied(context.loaded, context.coupling, read)
    checks = verified(context, keep, model, progress)
    stopwatch.mark("verify")
    progress.stage("measure", None)
    outcome = Outcome(keep, model, None, checks, rounding=read.rounding)
    report = account(context, outcome, context.holdout, "made up", output, options, stopwatch)
    return closed(report, save(model, output, context.loaded.external), stopwatch)


def _applied(loaded: LoadedModel, coupling: Coupling, plan: Plan) -> tuple[onnx.ModelProto, Array]:
    if plan.model != fingerprint(loaded.proto):
        raise PlanError(
            "the plan is for another model: its nodes or the shapes of its weights differ; "
            "apply it to the file that it was made from, or prune again with --plan"
        )
    keep = keep_vector(plan, {g.name: g.units for g in coupling.groups}, coupling.unit_count)
    return sweep(cut(coupling, keep), loaded.proto), keep


# -- looking ----------------------------------------------------------------------------------------------------


def analyse(model: Model, shapes: Mapping[str, tuple[int, ...]] | None = None, rules: str = "exact") -> Coupling:
    """The coupling of a model: its groups, what is held and why.

    >>> coupling = analyse("models/demo.onnx")
    >>> len(coupling.groups), coupling.groups[0].name
    (11, '/stem/conv/Conv')
    """
    return couple(load(model).proto, dict(shapes or {}), None, rules)


def inspect(model: Model, shapes: Mapping[str, tuple[int, ...]] | None = None, rules: str = "exact") -> Inspection:
    """What can be pruned, what cannot and why, and where the MACs are.

    ``shapes``: input name to shape, for dynamic dims.  ``rules``: "exact", or "approximate", which also cuts the
    width of normalizations.

    >>> found = inspect("models/demo.onnx")
    >>> found.groups[0].name, found.groups[0].before, found.groups[-1].locked
    ('/stem/conv/Conv', 16, "'logits' is an output of the model")
    """
    loaded = load(model)
    coupling = couple(loaded.proto, dict(shapes or {}), None, rules)
    cost = macs(coupling)
    everything = np.ones(coupling.unit_count, dtype=np.bool_)
    inputs = tuple(
        f"{name} {'x'.join(map(str, coupling.facts.shapes[name]))}"
        for name in coupling.graph.inputs
        if name in coupling.facts.shapes
    )
    return Inspection(
        model=str(loaded.path or "model"),
        macs=int(cost(sizes(coupling))),
        params=count_parameters(loaded.proto),
        bytes=loaded.file_bytes,
        nodes=len(view(loaded.proto).nodes),
        groups=group_rows(coupling, everything, frozenset()),
        prunable_macs_share=prunable_share(coupling),
        choices=choice_lines(coupling),
        inputs=inputs,
        notes=(*reading_notes(loaded, coupling), *loosening_notes(coupling)),
        layers=layer_rows(coupling, everything, frozenset()),
        operators=operator_shares(coupling),
        outlook=outlook(coupling),
    )


def why(
    model: Model,
    name: str,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    rules: str = "exact",
) -> str:
    """The group or lock of a tensor, node or group, and the path that ties or locks it.

    >>> print(why("models/demo.onnx", "logits"))
    tensor 'logits' (1x10)
      axis 1: 10 of 10 positions stay
        because 'logits' is an output of the model
        to unlock: nothing can: inputs and outputs of the model keep their shapes
    """
    return explain(couple(load(model).proto, dict(shapes or {}), None, rules), name)


def compare(a: Model, b: Model, data: object | None = None) -> Comparison:
    """MACs, parameters, bytes, latency and outputs of two models with the same inputs, side by side.

    >>> drop = compare("models/demo.onnx", "models/demo.onnx", "models/test.npz").drop
    >>> drop.metric, drop.value, drop.samples
    ('top-1 changed', 0.0, 256)
    """
    return compare_models(a, b, data, Options(), Silent())


def compare_models(
    a: Model,
    b: Model,
    data: object | None,
    options: Options,
    progress: Progress,
) -> Comparison:
    """See :func:`compare`; outputs are compared on the data, by name.

    Raises:
        ModelError: where the models take different inputs, or have no output in common.
    """
    first, second = load(a), load(b)
    check_inputs(first, second, ("the first", "the second"), "compare two that can be fed alike")
    dataset = open_dataset(data, specs_of(first), options.preprocess, samples_of(data, options), options.seed)
    progress.stage("compare", None)
    return replace(side_by_side(first, second, dataset, options), seen="made up" if data is None else "held out")


def operators(a: Model, b: Model, data: object | None, options: Options) -> tuple[OperatorTime, ...]:
    """Where the two models spend their time, by operator: see :func:`onnxprune.latency.operators.operator_times`."""
    first, second = load(a), load(b)
    dataset = open_dataset(data, specs_of(first), options.preprocess, 1, options.seed)
    feeds = next(dataset.batches(1))
    return operator_times(first.proto, second.proto, feeds, engine_of(options).cores())


def layers_to_time(model: Model, shapes: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, object]:
    """The layers file of a model, as JSON: what ``tools/measure_latency_table.py`` times on a device.

    >>> sorted({entry["key"].split()[0] for entry in layers_to_time("models/demo.onnx")["entries"]})
    ['Conv', 'MatMul', 'byte', 'inputs', 'mac', 'widths']
    """
    coupling = couple(load(model).proto, dict(shapes or {}), None, "exact")
    return layers_file(timed.signature for timed in timed_layers(coupling, layers(coupling)))
