"""Tuning: as a stage of a run, and on its own for any pair of models."""

from __future__ import annotations

from dataclasses import replace

import onnx

from onnxprune.calibration.dataset import Dataset
from onnxprune.calibration.open import open_dataset
from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.open import couple
from onnxprune.engine.session import Engine, open_session
from onnxprune.errors import DataError, ModelError, VerificationError
from onnxprune.graph.load import LoadedModel
from onnxprune.measure.information import sample_information
from onnxprune.measure.loss import output_loss
from onnxprune.options import AUTO, Options
from onnxprune.pipeline.accuracy import accuracy_of
from onnxprune.pipeline.evaluator import Evaluator, may_hold_classes
from onnxprune.pipeline.holdout import MAX_JUDGED, divide, held_out
from onnxprune.pipeline.outcome import Outcome
from onnxprune.pipeline.setup import MAX_TUNED, Context, check_inputs, engine_of, specs_for
from onnxprune.progress import Progress
from onnxprune.result import Drop, Stage, Tuned, Tuning
from onnxprune.surgery.cut import cut
from onnxprune.surgery.sweep import sweep
from onnxprune.tasks.answers import answers_of
from onnxprune.tasks.yardstick import outputs, yardstick
from onnxprune.tuning.need import need_device, need_torch
from onnxprune.tuning_length import TuningLength
from onnxprune.verify.checks import soundness

#: Samples on which to check a tuned model.
CHECKED = 4


def tuned(
    context: Context,
    chosen: Outcome,
    evaluator: Evaluator,
    labelled: Dataset,
    options: Options,
    progress: Progress,
) -> Outcome:
    """``chosen`` with a tuned model, and with the quality of the model at each stage.  Keeps its model without a gain.

    Returns ``chosen`` with a note if nothing can be tuned, or if the tuned model is not sound: ``chosen`` is already
    verified, and may already be written.
    """
    fit = context.spare or context.fit
    try:
        model, tuning = _tune(chosen.model, context.loaded, fit, context.holdout, context.engine, options, progress)
    except (ModelError, VerificationError) as error:
        note = f"{error}; the model stays as it was before tuning"
        progress.note(note)
        return replace(chosen, notes=(*chosen.notes, note))
    after = evaluator.drop(model)
    before = chosen.drop or evaluator.drop(chosen.model)
    if tuning.after < tuning.before and evaluator.metric is not None and before.value < after.value:
        note = "tuning brings the outputs closer to the original's, but the metric of --eval falls: the weights stay"
        progress.note(note)
        model, after = chosen.model, before
        tuning = replace(tuning, gained=False, after=tuning.before, notes=(*tuning.notes, note))
    progress.stage("measure", None)
    after = evaluator.with_interval(after, model)
    plain = sweep(cut(context.coupling, chosen.keep), context.loaded.proto)
    rows = [
        ("original", context.loaded.proto, Drop(after.metric, 0.0, after.samples)),
        ("cut", plain, evaluator.drop(plain)),
        ("refitted", chosen.model, before),
        ("tuned", model, after),
    ]
    stages = tuple(Stage(name, drop, accuracy_of(each, labelled, context.engine, None)) for name, each, drop in rows)
    return replace(chosen, model=model, drop=after, tuning=replace(tuning, stages=stages))


def tune_pair(student: LoadedModel, original: LoadedModel, data: object, options: Options, progress: Progress) -> Tuned:
    """See :func:`onnxprune.tune`.

    Raises:
        ModelError: if the two models take different inputs, have no output in common, or nothing can be tuned.
        DataError: if the data cannot be used.
        VerificationError: if the tuned model is not sound.
    """
    need_device(options.device)
    check_alike(student, original)
    samples = options.samples if options.samples is not None else MAX_TUNED
    specs = specs_for(original, data, options)
    dataset = open_dataset(data, specs, options.preprocess, samples, options.seed)
    labelled = (
        dataset if options.test is None else open_dataset(options.test, specs, options.preprocess, None, options.seed)
    )
    if dataset.count < 2:
        raise DataError("tuning needs some samples for training and others for evaluation; give more than one")
    for note in dataset.notes:
        progress.note(note)
    engine = engine_of(options)
    sample = {name: array.shape for name, array in dataset.fetch([0]).items()}
    coupling = couple(original.proto, {}, sample)
    # The same choice as in a run that prunes: its refit never saw these samples.
    information = sample_information(coupling, engine, dataset)
    fit, held = divide(dataset, held_out(dataset.count, options.seed, MAX_JUDGED, information))
    model, tuning = _tune(student.proto, original, fit, held, engine, options, progress)
    stages = [("original", original.proto), ("before", student.proto), ("tuned", model)]
    drops = _drops([model for _, model in stages], coupling, held, engine)
    rows = tuple(
        Stage(name, drop, accuracy_of(each, labelled, engine, None) if options.test is not None else None)
        for (name, each), drop in zip(stages, drops, strict=True)
        if drop is not None
    )
    return Tuned(model, replace(tuning, stages=rows))


def _tune(
    student: onnx.ModelProto,
    original: LoadedModel,
    fit: Dataset,
    held: Dataset,
    engine: Engine,
    options: Options,
    progress: Progress,
) -> tuple[onnx.ModelProto, Tuning]:
    need_torch()
    # Import torch only for tuning.
    from onnxprune.tuning.interrupt import once
    from onnxprune.tuning.tune import Request, tune

    with once() as stopped:
        request = Request(options.tune or TuningLength(), options.augment, options.device, options.seed, stopped)
        model, tuning = tune(student, original.proto, fit, held, engine, request, progress)
    for note in tuning.notes:
        progress.note(note)
    checks = soundness(model, student, original.complaints, next(fit.batches(CHECKED)), engine)
    if not checks.passed:
        raise VerificationError("the tuned model failed verification: " + "; ".join(checks.complaints))
    return model, tuning


def _drops(models: list[onnx.ModelProto], coupling: Coupling, held: Dataset, engine: Engine) -> list[Drop | None]:
    """How far each model is from the first, in the task's terms; None if the outputs differ in shape.

    ``coupling``: of the first.
    """
    names = [output.name for output in coupling.graph.model.graph.output]
    theirs = [{output.name for output in model.graph.output} for model in models]
    shared = [name for name in names if all(name in own for own in theirs)]
    answers = [answers_of(open_session(model, engine), held, shared) for model in models]
    reference = outputs(answers[0])
    loss = output_loss(coupling, shared, reference)
    measure = yardstick(answers[0], AUTO, "", may_hold_classes(coupling), loss)
    return [
        measure.drop(own)
        if all(a.shape == b.shape for a, b in zip(reference, outputs(own), strict=True))
        else None
        for own in answers
    ]


def check_alike(student: LoadedModel, original: LoadedModel) -> None:
    """Raise ModelError if the two models take different inputs or share no output."""
    remedy = "a teacher must take the same inputs as its student"
    check_inputs(student, original, ("the small one", "the teacher"), remedy)
    outputs = [{output.name for output in loaded.proto.graph.output} for loaded in (student, original)]
    if not outputs[0] & outputs[1]:
        raise ModelError("the two models have no output of the same name; rename the outputs of one")
