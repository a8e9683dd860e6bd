"""What the output loss is worth: prune by it and by the relative error of before, and ask the task on unseen samples.

    python tools/bench_measure.py detector.onnx pictures/calib pictures/test --preprocess unit --fit letterbox

Each row: the MACs kept, by which measure the widths were priced, the task's drop on samples of the second folder, which
no run sees, and the output loss there.  Everything else is the same, the refit included.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import onnx

import onnxprune
from onnxprune import metrics
from onnxprune.calibration.open import open_dataset
from onnxprune.calibration.preprocess import Preprocess
from onnxprune.cli.values import shape, shapes_by_name
from onnxprune.coupling.open import couple
from onnxprune.engine.session import Engine, open_session
from onnxprune.graph.load import LoadedModel, load
from onnxprune.measure.loss import OutputLoss, output_loss
from onnxprune.options import Options
from onnxprune.pipeline.evaluator import may_hold_classes
from onnxprune.pipeline.setup import specs_for
from onnxprune.tasks.answers import Answers, answers_of
from onnxprune.tasks.yardstick import outputs, yardstick

RESAMPLES = 400


@contextmanager
def by_relative_error() -> Iterator[None]:
    """Price and choose by the squared relative error of whole outputs, as before there was an output loss."""
    plain = OutputLoss.of

    def of(self: OutputLoss, found: Sequence[np.ndarray]) -> float:
        return metrics.plain_loss(self.reference, found)

    OutputLoss.of = of  # type: ignore[method-assign]
    try:
        yield
    finally:
        OutputLoss.of = plain  # type: ignore[method-assign]


class Judge:
    """The task's drop and the output loss of models, on ``count`` samples of ``data``."""

    def __init__(self, loaded: LoadedModel, data: str, options: Options, count: int) -> None:
        self.names = tuple(output.name for output in loaded.proto.graph.output)
        self.dataset = open_dataset(data, specs_for(loaded, data, options), options.preprocess, count, options.seed)
        sample = {name: array.shape for name, array in self.dataset.fetch([0]).items()}
        coupling, original = couple(loaded.proto, {}, sample), self._answers(loaded.proto)
        self.loss = output_loss(coupling, self.names, outputs(original))
        self.yardstick = yardstick(original, options.task, options.layout, may_hold_classes(coupling), self.loss)

    def _answers(self, model: onnx.ModelProto) -> Answers:
        return answers_of(open_session(model, Engine()), self.dataset, self.names)

    def row(self, model: onnx.ModelProto) -> str:
        found = self._answers(model)
        drop = self.yardstick.drop(found, RESAMPLES)
        interval = "" if drop.low is None else f" ({drop.low:.3f} … {drop.high:.3f})"
        return f"{drop.value:.3f}{interval}, {self.loss.of(outputs(found)):.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("unseen")
    parser.add_argument("--macs", type=float, nargs="+", default=[0.9, 0.8, 0.7, 0.6])
    parser.add_argument("--preprocess", default=None)
    parser.add_argument("--mean", type=float, nargs="+")
    parser.add_argument("--std", type=float, nargs="+")
    parser.add_argument("--bgr", action="store_true")
    parser.add_argument("--fit", default="crop")
    parser.add_argument("--crop", type=int)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--count", type=int, default=300, help="unseen samples")
    parser.add_argument("--effort", default="fast")
    parser.add_argument("--task", default="auto")
    parser.add_argument("--shape", type=shape, action="append", default=[], help="NAME=1x3x320x320, for dynamic inputs")
    given = parser.parse_args()
    preset = None
    if given.preprocess is not None:
        preset = Preprocess.named(
            given.preprocess, given.mean, given.std, None, given.crop, given.bgr or None, given.fit
        )
    loaded = load(Path(given.model))
    shapes = shapes_by_name(given.shape)
    options = Options(preprocess=preset, task=given.task, shapes=shapes, threads=1)
    judge = Judge(loaded, given.unseen, options, given.count)
    print(judge.yardstick.note or judge.yardstick.measure, file=sys.stderr)
    print(f"MACs, priced by, {judge.yardstick.measure} on unseen samples, output loss there, CPU s")
    for share in given.macs:
        for way in ("relative error", "output loss"):
            began = time.process_time()
            with by_relative_error() if way == "relative error" else nullcontext():
                result = onnxprune.prune(
                    given.model,
                    given.data,
                    macs=share,
                    samples=given.samples,
                    preprocess=preset,
                    effort=given.effort,
                    round_to=1,
                    threads=1,
                    task=given.task,
                    shapes=shapes,
                )
            spent = time.process_time() - began
            print(f"{share:g}, {way}, {judge.row(result.model)}, {spent:.0f}", flush=True)


if __name__ == "__main__":
    main()
