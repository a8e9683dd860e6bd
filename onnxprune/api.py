"""The public functions: prune, apply, inspect, compare, why - the pipeline, top to bottom."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from onnxprune import metrics
from onnxprune.attempt import find
from onnxprune.budget.cost import count_parameters, macs, sizes
from onnxprune.budget.target import Budget
from onnxprune.calibration.dataset import Dataset
from onnxprune.calibration.open import open_dataset
from onnxprune.calibration.preprocess import Preprocess
from onnxprune.choose import plan_of, price, rank, whole
from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.open import couple
from onnxprune.coupling.why import why as explain
from onnxprune.describe import choice_lines, group_rows, prunable_share
from onnxprune.errors import BudgetError, OutputError, PlanError, VerificationError
from onnxprune.graph.load import LoadedModel, load
from onnxprune.graph.save import check_writable, save
from onnxprune.judge import accuracies, judge
from onnxprune.options import Options
from onnxprune.outline import layer_rows
from onnxprune.plan import Plan, fingerprint, keep_vector
from onnxprune.progress import Progress, Silent
from onnxprune.result import (
    Change,
    Comparison,
    CurvePoint,
    Drop,
    GroupCurve,
    Inspection,
    Refitted,
    Report,
    Result,
    SearchStep,
    Verification,
)
from onnxprune.runtime.latency import compare_latency
from onnxprune.runtime.outputs import outputs_of
from onnxprune.runtime.session import Engine, open_session, serialize
from onnxprune.study import Study, engine_of, specs_of, study
from onnxprune.surgery.cut import cut
from onnxprune.surgery.edit import sweep
from onnxprune.verify import verify

Array = np.ndarray
VERIFY_SAMPLES = 4


class _Clock:
    """Seconds per stage, in the order in which stages end."""

    def __init__(self) -> None:
        self.start = self._last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def mark(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now

    def done(self) -> dict[str, float]:
        return {**self.seconds, "total": time.perf_counter() - self.start}


def prune(
    model: str | Path | onnx.ModelProto,
    data: object | None = None,
    *,
    macs: float | None = None,
    params: float | None = None,
    size: float | None = None,
    latency: float | None = None,
    max_drop: float | None = None,
    samples: int = 256,
    preprocess: str | Preprocess | None = None,
    select: str = "qr",
    refit: str = "lstsq",
    round_to: int | None = None,
    exclude: tuple[str, ...] = (),
    only: tuple[str, ...] = (),
    evaluate: object | None = None,
    test: object | None = None,
    providers: tuple[str, ...] = ("CPUExecutionProvider",),
    threads: int = 0,
    memory: int | None = None,
    seed: int = 0,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    progress: Progress | None = None,
) -> Result:
    """Prune ``model`` and verify the result; nothing is written.

    ``data`` is anything that ``--data`` takes, or an iterable of {input name: array}.  One budget: the fraction
    kept of ``macs``, ``params``, ``size`` (or bytes) or ``latency``, or the largest ``max_drop`` (default 0.01).

    Raises:
        OnnxPruneError: a subclass per kind of problem; :class:`VerificationError` where the result is not sound.

    >>> result = prune("models/demo.onnx", "models/calib.npz", macs=0.7, preprocess="unit", samples=64)
    >>> result.report.macs.ratio <= 0.7 and result.report.verify.passed
    True
    >>> [(cut.group, cut.before, len(cut.kept)) for cut in result.plan.cuts if cut.before <= len(cut.kept)]
    []
    """
    asked = {"macs": macs, "params": params, "size": size, "latency": latency, "max_drop": max_drop}
    given = [(kind, value) for kind, value in asked.items() if value is not None]
    if len(given) > 1:
        raise BudgetError(f"one budget at a time, got {' and '.join(k for k, _ in given)}")
    kind, value = given[0] if given else ("max_drop", 0.01)
    options = Options(
        budget=Budget(kind, value),  # type: ignore[arg-type]
        samples=samples,
        preprocess=Preprocess.named(preprocess) if isinstance(preprocess, str) else preprocess,
        select=select,
        refit=refit,
        round_to=round_to,
        exclude=exclude,
        only=only,
        evaluate=evaluate,
        test=test,
        providers=providers,
        threads=threads,
        memory=memory,
        seed=seed,
        shapes=dict(shapes or {}),
    )
    return _prune(load(model), None, data, options, progress or Silent())


def prune_file(path: Path, output: Path | None, data: object | None, options: Options, progress: Progress) -> Result:
    """Prune the file ``path`` and write the result to ``output``, whole or not at all."""
    target = output or path.with_name(path.stem + ".pruned.onnx")
    check_writable(target, path)
    return _prune(load(path), target, data, options, progress)


def _prune(
    loaded: LoadedModel, target: Path | None, data: object | None, options: Options, progress: Progress
) -> Result:
    clock = _Clock()
    work = study(loaded, data, options)
    # Before anything that takes long: wrong data, or a metric that fails, shows here.
    scale = judge(work, options.evaluate)
    if data is not None:
        work = replace(work, notes=work.notes + metrics.suspicious(scale.outputs, scale.reference, work.holdout.count))
    for note in work.notes:
        progress.note(note)
    clock.mark("couple")
    rankings, grams = rank(work, options, progress)
    clock.mark("calibrate")
    choices = price(work, options, rankings, grams, progress)
    clock.mark("select")
    found = find(work, choices, scale, options, progress)
    chosen = found.candidate
    clock.mark("refit")
    checks = _verified(work.coupling, chosen.keep, chosen.model, loaded, work.fit, work.engine, progress)
    clock.mark("verify")
    curves = tuple(
        GroupCurve(g.name, tuple(CurvePoint(int(k), float(c.damage[k])) for k in _few(c.widths)))
        for g, c in zip(work.coupling.groups, choices.curves, strict=True)
        if g.id not in work.frozen
    )
    report = _report(work, chosen.keep, chosen.model, chosen.drop, checks, target, options, clock, progress)
    written = _write(chosen.model, target, loaded)
    report = _extended(report, written, curves, found.steps, chosen.refits, clock)
    return Result(chosen.model, plan_of(work, chosen.keep), report, target)


def _few(widths: Array) -> Array:
    return widths if len(widths) <= 33 else widths[np.unique(np.linspace(0, len(widths) - 1, 33).astype(int))]


def _verified(
    coupling: Coupling,
    keep: Array,
    model: onnx.ModelProto,
    loaded: LoadedModel,
    data: Dataset,
    engine: Engine,
    progress: Progress,
) -> Verification:
    progress.stage("verify", None)
    feeds = next(data.batches(min(VERIFY_SAMPLES, data.batch_limit or VERIFY_SAMPLES)))
    checks = verify(coupling, keep, model, loaded.complaints, feeds, engine)
    if not checks.passed:
        raise VerificationError("the result failed verification and was not written: " + "; ".join(checks.complaints))
    return checks


def _report(
    work: Study,
    keep: Array,
    model: onnx.ModelProto,
    drop: Drop | None,
    checks: Verification,
    target: Path | None,
    options: Options,
    clock: _Clock,
    progress: Progress,
) -> Report:
    progress.stage("measure", None)
    cost = macs(work.coupling)
    kept = np.asarray([int(keep[g.units].sum()) for g in work.coupling.groups], dtype=np.float64)
    feeds = next(work.fit.batches(1))
    latency, spread = compare_latency(work.loaded.proto, model, feeds, work.engine)
    labelled = work.holdout
    if options.test is not None:
        labelled = open_dataset(options.test, work.fit.specs, options.preprocess, None, options.seed)
    accuracy = accuracies(work.loaded.proto, model, labelled, work.engine)
    clock.mark("measure")
    settings = {
        "budget": options.budget.describe(),
        "data": work.fit.origin,
        "samples": f"{work.fit.count} to fit, {work.holdout.count} held out",
        "select": options.select,
        "refit": options.refit,
        "round": "auto" if options.round_to is None else str(options.round_to),
        "seed": str(options.seed),
    }
    return Report(
        model=str(work.loaded.path or "model"),
        output=None if target is None else str(target),
        macs=Change(int(cost(whole(work.coupling))), int(cost(kept))),
        params=Change(count_parameters(work.loaded.proto), count_parameters(model)),
        bytes=Change(work.loaded.file_bytes, model.ByteSize()),
        latency_ms=latency,
        latency_spread=spread,
        drop=drop,
        accuracy=accuracy,
        groups=group_rows(work.coupling, keep, work.frozen),
        choices=choice_lines(work.coupling),
        verify=checks,
        seconds=clock.done(),
        peak_rss_bytes=peak_rss(),
        notes=work.notes,
        settings=settings,
        layers=layer_rows(work.coupling, keep, work.frozen),
    )


def _extended(
    report: Report,
    written: int | None,
    curves: tuple[GroupCurve, ...],
    steps: tuple[SearchStep, ...],
    refits: tuple[Refitted, ...],
    clock: _Clock,
) -> Report:
    return replace(
        report,
        bytes=Change(report.bytes.before, written) if written else report.bytes,
        curves=curves,
        search=steps,
        refits=refits,
        seconds=clock.done(),
        peak_rss_bytes=peak_rss(),
    )


def _write(model: onnx.ModelProto, target: Path | None, loaded: LoadedModel) -> int | None:
    return None if target is None else save(model, target, loaded.external)


def peak_rss() -> int:
    """Peak resident memory of this process, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


# -- plans ------------------------------------------------------------------------------------------------------


def apply(model: str | Path | onnx.ModelProto, plan: Plan | str | Path) -> onnx.ModelProto:
    """Replay the cuts of ``plan`` on ``model``: the same channels, without a refit (a plan holds no weights).

    Raises:
        PlanError: where the plan does not belong to the model.

    >>> from onnxprune.plan import Cut, Plan, fingerprint
    >>> model = onnx.load("models/demo.onnx")
    >>> plan = Plan(fingerprint(model), (Cut("/stem/conv/Conv", 16, tuple(range(8))),))
    >>> inspect(apply(model, plan)).groups[0].before
    8
    """
    loaded = load(model)
    coupling = couple(loaded.proto, {}, None)
    return _applied(loaded, coupling, plan if isinstance(plan, Plan) else Plan.read(plan))[0]


def apply_file(path: Path, plan: Path, output: Path, options: Options, progress: Progress) -> Report:
    """Replay a plan on a file, verify, write."""
    check_writable(output, path)
    clock = _Clock()
    loaded = load(path)
    work = study(loaded, None, options)
    clock.mark("couple")
    model, keep = _applied(loaded, work.coupling, Plan.read(plan))
    checks = _verified(work.coupling, keep, model, loaded, work.fit, work.engine, progress)
    clock.mark("verify")
    report = _report(work, keep, model, None, checks, output, options, clock, progress)
    written = _write(model, output, loaded)
    return _extended(report, written, (), (), (), clock)


def _applied(loaded: LoadedModel, coupling: Coupling, plan: Plan) -> tuple[onnx.ModelProto, Array]:
    if plan.model != fingerprint(loaded.proto):
        raise PlanError("the plan was made for another model (its nodes or the shapes of its weights differ)")
    keep = keep_vector(plan, {g.name: g.units for g in coupling.groups}, coupling.unit_count)
    return sweep(cut(coupling, keep), loaded.proto), keep


# -- looking ----------------------------------------------------------------------------------------------------


def analyse(model: str | Path | onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Coupling:
    """The coupling of a model: its groups, what is held and why."""
    return couple(load(model).proto, dict(shapes or {}), None)


def inspect(model: str | Path | onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Inspection:
    """What can be pruned, what cannot and why, and where the MACs are.

    ``shapes``: input name to shape, for dynamic dims.

    >>> found = inspect("models/demo.onnx")
    >>> found.groups[0].name, found.groups[0].before, found.groups[-1].locked
    ('/stem/conv/Conv', 16, "'logits' is an output of the model")
    """
    loaded = load(model)
    coupling = couple(loaded.proto, dict(shapes or {}), None)
    cost = macs(coupling)
    everything = np.ones(coupling.unit_count, dtype=np.bool_)
    inputs = tuple(
        f"{name} {'x'.join(map(str, coupling.facts.shapes[name]))}"
        for name in coupling.graph.inputs
        if name in coupling.facts.shapes
    )
    return Inspection(
        model=str(loaded.path or "model"),
        macs=int(cost(whole(coupling))),
        params=count_parameters(loaded.proto),
        bytes=loaded.file_bytes,
        nodes=len(coupling.graph.nodes),
        groups=group_rows(coupling, everything, frozenset()),
        prunable_macs_share=prunable_share(coupling),
        choices=choice_lines(coupling),
        inputs=inputs,
        notes=tuple(f"onnx.checker: {c}" for c in loaded.complaints),
        layers=layer_rows(coupling, everything, frozenset()),
    )


def why(model: str | Path | onnx.ModelProto, name: str, shapes: Mapping[str, tuple[int, ...]] | None = None) -> str:
    """The group or lock of a tensor, node or group, and the path that ties or locks it.

    >>> print(why("models/demo.onnx", "logits"))
    tensor 'logits' (1x10)
      axis 1: 10 of 10 positions stay: 'logits' is an output of the model
        to unlock: impossible: inputs and outputs of the model keep their shapes
    """
    return explain(couple(load(model).proto, dict(shapes or {}), None), name)


def compare(a: str | Path | onnx.ModelProto, b: str | Path | onnx.ModelProto, data: object | None = None) -> Comparison:
    """MACs, parameters, bytes, latency and outputs of two models with the same inputs, side by side.

    >>> compare("models/demo.onnx", "models/demo.onnx", "models/test.npz").drop
    Drop(metric='top-1 changed', value=0.0, samples=256)
    """
    return compare_models(a, b, data, Options(), Silent())


def compare_models(
    a: str | Path | onnx.ModelProto,
    b: str | Path | onnx.ModelProto,
    data: object | None,
    options: Options,
    progress: Progress,
) -> Comparison:
    """See :func:`compare`; outputs are compared on the data, by name."""
    first, second = load(a), load(b)
    specs = specs_of(first)
    dataset = open_dataset(data, specs, options.preprocess, options.samples, options.seed)
    engine = engine_of(options)
    progress.stage("compare", None)
    sample = {name: array.shape for name, array in dataset.fetch([0]).items()}
    costs = []
    for loaded in (first, second):
        coupling = couple(loaded.proto, options.shapes, sample)
        costs.append(macs(coupling)(sizes(coupling).astype(np.float64)))
    shared = [o.name for o in first.proto.graph.output if o.name in {p.name for p in second.proto.graph.output}]
    if not shared:
        raise OutputError("the two models have no output of the same name to compare")
    batch = dataset.batch_limit or 32
    left = outputs_of(open_session(first.proto, engine), dataset, shared, batch)
    right = outputs_of(open_session(second.proto, engine), dataset, shared, batch)
    alike = [x.shape == y.shape for x, y in zip(left, right, strict=True)]
    drop = metrics.drop(left, right, dataset.count) if all(alike) else None
    outputs = tuple(
        (name, metrics.relative_error([x], [y]))
        for name, x, y, same in zip(shared, left, right, alike, strict=True)
        if same
    )
    latency, spread = compare_latency(first.proto, second.proto, next(dataset.batches(1)), engine)
    return Comparison(
        a=str(first.path or "a"),
        b=str(second.path or "b"),
        macs=Change(int(costs[0]), int(costs[1])),
        params=Change(count_parameters(first.proto), count_parameters(second.proto)),
        bytes=Change(first.file_bytes, second.file_bytes),
        latency_ms=latency,
        latency_spread=spread,
        drop=drop,
        accuracy=accuracies(first.proto, second.proto, dataset, engine),
        outputs=outputs,
    )


def to_bytes(model: onnx.ModelProto) -> bytes:
    """The model as a file's bytes, the same each time."""
    return serialize(model)
