"""The public functions: prune, tune, apply, analyse, inspect, why, compare.

Each turns its arguments into options and calls its workflow (:mod:`onnxprune.workflows`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx

import onnxprune.report.notebook  # noqa: F401  (teaches results how a notebook shows them)
from onnxprune.calibration.preprocess import Preprocess
from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.open import couple
from onnxprune.coupling.why import explain
from onnxprune.graph.load import load
from onnxprune.option_kinds import TEXT
from onnxprune.option_values import budgets_of, length_of, path_of, preprocess_of, rules_of, shapes_of, widths_of
from onnxprune.options import AUTO, Options
from onnxprune.pipeline.stopwatch import Stopwatch
from onnxprune.pipeline.tuned import tune_pair
from onnxprune.plan import Plan
from onnxprune.progress import Progress, Silent
from onnxprune.result import Comparison, Inspection, Result, Tuned
from onnxprune.surgeon import Model
from onnxprune.target import BudgetKind
from onnxprune.workflows.apply import apply_plan
from onnxprune.workflows.compare import compare_models
from onnxprune.workflows.inspect import inspection_of
from onnxprune.workflows.prune import prune_model


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
    """Prune ``model`` and verify the result.  Writes nothing.

    ``model`` is a file, a ModelProto or an onnx-graphsurgeon graph, as everywhere in this module.  It never changes.
    ``data`` is anything that ``--data`` takes, or an iterable of {input name: array}.  The result meets all budgets: the
    fraction kept of ``macs``, ``params``, ``size`` (or bytes) or ``latency``, and the largest ``max_drop`` in the task's
    terms (default 0.01 for classes and strings, 0.02 for embeddings, 0.05 for the rest).
    ``keep``, ``at_least``, ``at_most``: glob to channels kept, a share (float) or a count (int).
    The other options match the command line (:class:`onnxprune.options.Options`).

    Raises:
        OnnxPruneError: a subclass per kind of problem; :class:`VerificationError` if the result is not sound.

    >>> result = prune("models/demo.onnx", "models/calib.npz", macs=0.7, preprocess="unit", samples=64)
    >>> result.report.macs.ratio <= 0.7 and result.report.verify.passed
    True
    >>> [(cut.group, cut.before, len(cut.kept)) for cut in result.plan.cuts if cut.before <= len(cut.kept)]
    []
    """
    asked: dict[BudgetKind, float | None] = {"macs": macs, "params": params, "size": size, "latency": latency, "max_drop": max_drop}
    options = Options(
        budgets=budgets_of(asked),
        samples=samples,
        preprocess=preprocess_of(preprocess),
        select=select,
        refit=refit,
        effort=effort,
        round_to=round_to,
        block=block,
        latency_table=path_of("latency_table", latency_table),
        exclude=exclude,
        only=only,
        keep=widths_of("keep", keep),
        at_least=widths_of("at_least", at_least),
        at_most=widths_of("at_most", at_most),
        target=target,
        evaluate=evaluate,
        test=test,
        providers=providers,
        threads=threads,
        memory=memory,
        seed=seed,
        shapes=shapes_of(shapes),
        rules=rules,
        tune=None if tune is None else length_of("tune", tune),
        augment=augment,
        device=device,
        task=task,
        layout=layout,
        pictures=pictures,
        workers=workers,
        cluster=cluster,
    )
    return prune_model(model, None, data, options, progress or Silent(), Stopwatch())


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
    memory: int | None = None,
    seed: int = 0,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    task: str = AUTO,
    layout: str = "",
    progress: Progress | None = None,
) -> Tuned:
    """Train the weights of ``student`` until it answers more like ``teacher``.  Changes only weights, and writes nothing.

    The two models take the same inputs and share outputs by name: a pruned model and its original, whatever tool pruned
    it.  ``data`` needs no labels: the teacher's answers are the labels.  ``length``: a time ("10m"), passes over the data
    ("20x"), or "auto": until held-out samples stop gaining, at most ten minutes.  All other options: see
    :class:`onnxprune.options.Options`.  Needs torch: ``pip install 'onnxprune[tune]'``.

    The result holds the tuned model and the held-out errors before and after.  If the error does not fall, the weights
    stay as they were.

    Raises:
        ModelError, DataError: a model or ``data`` cannot be read, or does not fit the other model.
        OptionError: an option is wrong, or torch is missing.
    """
    options = Options(
        samples=samples,
        preprocess=preprocess_of(preprocess),
        tune=length_of("length", length),
        augment=augment,
        device=device,
        test=test,
        providers=providers,
        threads=threads,
        memory=memory,
        seed=seed,
        shapes=shapes_of(shapes),
        task=task,
        layout=layout,
    )
    return tune_pair(load(student), load(teacher), data, options, progress or Silent())


# -- plans ------------------------------------------------------------------------------------------------------


def apply(model: Model, plan: Plan | str | Path) -> onnx.ModelProto:
    """Replay the cuts of ``plan`` on ``model``: the same channels, without a refit (a plan holds no weights).

    ``plan`` is a :class:`Plan` or the path of its JSON file.  ``model`` may have new weights, but must have the nodes and
    shapes that the plan was made for; it never changes.  Takes seconds and needs no data.

    Raises:
        ModelError: the model cannot be read.
        PlanError: the plan cannot be read, or belongs to another model.
        OptionError: ``plan`` is neither a plan nor a path.

    >>> from onnxprune.plan import Cut, Plan, fingerprint
    >>> model = onnx.load("models/demo.onnx")
    >>> plan = Plan(fingerprint(model), (Cut("/stem/conv/Conv", 16, tuple(range(8))),))
    >>> inspect(apply(model, plan)).groups[0].before
    8
    """
    loaded, read = load(model), plan if isinstance(plan, Plan) else Plan.read(plan)
    return apply_plan(loaded, couple(loaded.proto, {}, None, read.rules), read)[0]


# -- looking ----------------------------------------------------------------------------------------------------


def analyse(model: Model, shapes: Mapping[str, tuple[int, ...]] | None = None, rules: str = "exact") -> Coupling:
    """The coupling of a model: its groups, and the locked channels with their reasons.

    ``shapes`` and ``rules``: see :func:`inspect`, which shows the same in plain numbers.

    Raises:
        ModelError: the model cannot be read, or a shape does not fit its inputs.
        OptionError: ``shapes`` or ``rules`` are of another kind.

    >>> coupling = analyse("models/demo.onnx")
    >>> len(coupling.groups), coupling.groups[0].name
    (11, '/stem/conv/Conv')
    """
    return couple(load(model).proto, shapes_of(shapes), None, rules_of(rules))


def inspect(model: Model, shapes: Mapping[str, tuple[int, ...]] | None = None, rules: str = "exact") -> Inspection:
    """What can be pruned, what cannot and why, and where the MACs are.

    ``shapes``: input name to shape, for dynamic dims, such as ``{"images": (1, 3, 640, 640)}``.  ``rules``: "exact", or
    "approximate", which also cuts the width of normalizations.  Needs no data; takes about a second for a small model.

    Raises:
        ModelError: the model cannot be read, or a shape does not fit its inputs.
        OptionError: ``shapes`` or ``rules`` are of another kind.

    >>> inspection = inspect("models/demo.onnx")
    >>> inspection.groups[0].name, inspection.groups[0].before, inspection.groups[-1].locked
    ('/stem/conv/Conv', 16, "'logits' is an output of the model")
    """
    loaded = load(model)
    return inspection_of(loaded, couple(loaded.proto, shapes_of(shapes), None, rules_of(rules)))


def why(
    model: Model,
    name: str,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    rules: str = "exact",
) -> str:
    """The group or lock of a tensor, node or group, and the path that ties or locks it, as text of several lines.

    ``name`` is the name of a tensor, a node or a group.  ``shapes`` and ``rules``: see :func:`inspect`.

    Raises:
        ModelError: the model cannot be read, or a shape does not fit its inputs.
        OptionError: ``shapes`` or ``rules`` are of another kind.
        PlanError: nothing in the model has that name; the message offers similar names.

    >>> print(why("models/demo.onnx", "logits"))
    tensor 'logits' (1x10)
      axis 1: 10 of 10 positions stay
        because 'logits' is an output of the model
        to unlock: not possible: inputs and outputs of the model keep their shapes
    """
    TEXT.check("name", name)
    return explain(couple(load(model).proto, shapes_of(shapes), None, rules_of(rules)), name)


def compare(
    a: Model,
    b: Model,
    data: object | None = None,
    *,
    samples: int | None = None,
    preprocess: str | Preprocess | None = None,
    evaluate: object | None = None,
    test: object | None = None,
    providers: tuple[str, ...] = ("CPUExecutionProvider",),
    threads: int = 0,
    memory: int | None = None,
    seed: int = 0,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    task: str = AUTO,
    layout: str = "",
) -> Comparison:
    """MACs, parameters, bytes, latency and outputs of two models with the same inputs, side by side.

    ``data`` is anything that ``--data`` takes, or an iterable of {input name: array}; labels give the accuracy of both
    models.  Without it, inputs are made up.  The other options match the command line
    (:class:`onnxprune.options.Options`).  Both models run on all samples and their timed runs alternate: seconds for a
    small model, minutes for a large one.

    Raises:
        ModelError: a model cannot be read, or the models take different inputs or share no output.
        DataError: ``data`` cannot be read, or does not fit the inputs.
        OptionError: an option is wrong.

    >>> drop = compare("models/demo.onnx", "models/demo.onnx", "models/test.npz").drop
    >>> drop.metric, drop.value, drop.samples
    ('top-1 changed', 0.0, 256)
    """
    options = Options(
        samples=samples,
        preprocess=preprocess_of(preprocess),
        evaluate=evaluate,
        test=test,
        providers=providers,
        threads=threads,
        memory=memory,
        seed=seed,
        shapes=shapes_of(shapes),
        task=task,
        layout=layout,
    )
    return compare_models(a, b, data, options, Silent())
