"""Runs spread over workers: the same bits as in one process, whatever happens to a worker; refusals in one line."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import Sketch

from onnxprune.budget.probe import KeptMeasure
from onnxprune.budget.sensitivity import survey_of
from onnxprune.calibration.moments import shards
from onnxprune.calibration.row_rule import MOMENTS
from onnxprune.cli import main
from onnxprune.cluster.job import context_of, data_for_workers, job_of
from onnxprune.errors import DataError, OptionError
from onnxprune.graph.load import LoadedModel, load
from onnxprune.options import Options
from onnxprune.pipeline.calibrate import calibrate
from onnxprune.pipeline.compute import HERE, RefitRequest
from onnxprune.pipeline.ranking import rank
from onnxprune.pipeline.setup import Context, calibrated, set_up
from onnxprune.progress import Silent
from onnxprune.refit.kept_targets import KeptTargets

WIDE, SAMPLES = 12, 160
#: One thread: sums in one order.
OPTIONS = Options(threads=1, select="qr", samples=SAMPLES)


def model() -> onnx.ModelProto:
    sketch = Sketch()
    x = sketch.input("x", ["n", WIDE])
    for _ in range(3):
        x = sketch.op("Relu", sketch.op("MatMul", x, sketch.weight(WIDE, WIDE)))
    sketch.output(sketch.op("MatMul", x, sketch.weight(WIDE, 4)), ["n", 4])
    return sketch.model()


def arrays(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((SAMPLES, WIDE)).astype(np.float32)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, x=arrays())
    return path


def opened(data: object) -> tuple[LoadedModel, Context]:
    loaded = load(model())
    return loaded, set_up(loaded, data, OPTIONS)


@pytest.fixture(scope="module")
def workers() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def spread(client: Any, loaded: LoadedModel, data: object) -> Any:
    from onnxprune.cluster.spread import Spread

    return Spread(client, loaded, data, OPTIONS)


def spread_module() -> Any:
    from onnxprune.cluster import spread

    return spread


def summed(compute: Any, context: Context, progress: Any) -> list[object]:
    """Everything that ``compute`` computes in a run, as values that can be compared."""
    grams = calibrate(context, OPTIONS, progress, compute)
    rankings = rank(context, OPTIONS, grams, progress, compute)
    given = calibrated(context, grams, context.holdout, OPTIONS)
    survey = survey_of(given, frozenset(), 1e12, 32)
    progress.stage("sensitivity", None)
    losses = compute.measured(context, OPTIONS, grams, rankings, survey, progress, KeptMeasure())
    moments = [(index, gram.rows, gram.of(0).tobytes()) for index, gram in sorted(grams.items())]
    return [moments, [order.order.tolist() for order in rankings["qr"]], losses, *refits(compute, context, grams, progress)]


def refits(compute: Any, context: Context, grams: Any, progress: Any) -> list[object]:
    """Refits to all samples and to some, alone and with the original's activations kept for a second cut."""
    found: list[object] = []
    for samples in (np.arange(context.fit.count), np.arange(0, context.fit.count, 2)):
        with KeptTargets() as kept:
            for left, targets in ((1, None), (2, kept), (3, kept)):
                keep = np.ones(context.coupling.unit_count, dtype=np.bool_)
                for group in context.coupling.groups:
                    keep[group.units[:left]] = False
                request = RefitRequest(keep, samples, MOMENTS, 0)
                refit = compute.refitted(context, OPTIONS, grams, request, request.pruned(context), progress, targets)
                assert refit.weights
                found.append(({use: array.tobytes() for use, array in refit.weights.items()}, refit.layers))
    return found


def test_shards_depend_on_the_data_alone_and_hold_every_batch_once() -> None:
    _, context = opened(arrays())
    found = shards(context.coupling, context.layers, context.fit)
    assert len(found) > 1
    assert [number for part in found for number in part] == list(range(found[-1].stop))


class Killer(Silent):
    """Ends a worker after the first step of the stage ``name``."""

    def __init__(self, client: Any, name: str) -> None:
        self.client, self.name, self.running, self.killed = client, name, "", 0

    def stage(self, name: str, steps: int | None, turn: int = 1, turns: int = 1) -> None:
        self.running = name

    def advance(self, steps: int = 1) -> None:
        if self.running == self.name and not self.killed:
            self.killed = next(iter(self.client.run(os.getpid).values()))
            os.kill(self.killed, signal.SIGKILL)


def test_every_worker_takes_part_however_much_a_run_sends(workers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """dask moves no task to a worker that would first have to fetch 100 MB."""
    data = np.tile(arrays(), (12_000, 1))
    loaded, context = opened(data)
    compute, took = spread(workers, loaded, data), []
    waiting = compute._wait

    def wait(futures: Any, steps: int, progress: Any) -> None:
        waiting(futures, steps, progress)
        took.append({worker for held in workers.who_has(futures).values() for worker in held})

    monkeypatch.setattr(compute, "_wait", wait)
    summed(compute, context, Silent())
    assert [len(each) for each in took] == [2, 2, 2]


def test_two_processes_find_the_same_bits_as_one(workers: Any, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, context = opened(str(saved))
    alone = summed(HERE, context, Silent())
    # Nothing may fall back to this process.
    monkeypatch.setattr(spread_module(), "HERE", None)
    assert summed(spread(workers, loaded, str(saved)), context, Silent()) == alone


@pytest.mark.parametrize("stage", ["calibrate", "select", "sensitivity", "refit"])
def test_a_killed_worker_changes_nothing(workers: Any, saved: Path, stage: str) -> None:
    loaded, context = opened(str(saved))
    alone, killer = summed(HERE, context, Silent()), Killer(workers, stage)
    assert summed(spread(workers, loaded, str(saved)), context, killer) == alone
    assert killer.killed


def test_a_refit_runs_here_where_workers_die_again_and_again(
    workers: Any, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, context = opened(str(saved))
    compute = spread(workers, loaded, str(saved))
    grams = calibrate(context, OPTIONS, Silent(), compute)
    tries: list[object] = []

    def lost(*arguments: object) -> None:
        tries.append(arguments)
        raise OSError("Unable to contact Actor's worker")

    monkeypatch.setattr(compute._actors, "of", lost)
    assert refits(compute, context, grams, Silent()) == refits(HERE, context, grams, Silent())
    assert len(tries) == 2 * 6


def test_refinement_runs_here(saved: Path) -> None:
    pytest.importorskip("distributed")
    loaded, context = opened(str(saved))
    grams = calibrate(context, OPTIONS, Silent(), HERE)
    keep = np.ones(context.coupling.unit_count, dtype=np.bool_)
    keep[context.coupling.groups[0].units[:2]] = False
    request = RefitRequest(keep, np.arange(context.fit.count), MOMENTS, 1)
    pruned = request.pruned(context)
    alone = HERE.refitted(context, OPTIONS, grams, request, pruned, Silent(), None)
    # Without a client, any use of a worker would fail.
    found = spread(None, loaded, str(saved)).refitted(context, OPTIONS, grams, request, pruned, Silent(), None)
    assert found.layers == alone.layers


def test_a_worker_without_the_data_says_so(workers: Any, saved: Path) -> None:
    loaded, context = opened(str(saved))
    saved.rename(saved.with_name("elsewhere.npz"))
    with pytest.raises(DataError, match=r"worker tcp://.*data\.npz.*must see the data at the same place"):
        spread(workers, loaded, str(saved)).moments(context, OPTIONS, Silent())


def test_a_worker_with_other_data_or_another_version_says_so(saved: Path) -> None:
    loaded, context = opened(str(saved))
    job = job_of(loaded, str(saved), OPTIONS, context, "1")
    assert context_of(job, "1", "w").fit.count == context.fit.count
    with pytest.raises(OptionError, match="worker w has onnxprune 2, this machine 1"):
        context_of(job, "2", "w")
    np.savez(saved, x=arrays(seed=1))
    with pytest.raises(DataError, match="worker w sees other samples"):
        context_of(job, "1", "w")
    # The user's own functions stay here.
    assert job_of(loaded, None, replace(OPTIONS, evaluate=print), context, "1").options.evaluate is None


def test_only_data_that_can_be_opened_again_goes_to_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "load.py").touch()
    assert data_for_workers("photos") == str(tmp_path / "photos")
    assert data_for_workers("load.py:samples") == f"{tmp_path / 'load.py'}:samples"
    assert data_for_workers("hf:beans") == "hf:beans"
    with pytest.raises(OptionError, match="workers cannot open data of type generator"):
        data_for_workers(sample for sample in arrays())


def test_a_scheduler_that_does_not_answer_is_one_line(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("distributed")
    net = tmp_path / "net.onnx"
    onnx.save(model(), net)
    code = main([str(net), "--data", str(saved), "--macs", "0.7", "--cluster", "tcp://127.0.0.1:9", "-q"])
    told = capsys.readouterr().err.strip()
    assert code == 2
    assert "no scheduler answers at tcp://127.0.0.1:9" in told
    assert len(told.splitlines()) == 1
    assert not list(tmp_path.glob("*pruned*"))


def test_workers_and_a_cluster_are_not_asked_for_together() -> None:
    with pytest.raises(OptionError, match="give one of them"):
        Options(workers=2, cluster="tcp://127.0.0.1:8786")


FAULTS = """
import resource, sys
import numpy as np
from onnxprune.engine.release import reuse_memory

if sys.argv[1] == "reuse":
    reuse_memory()
np.ones(1 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    np.ones(1 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="about glibc")
def test_a_worker_reuses_freed_arrays_where_dask_keeps_glibc_from_it() -> None:
    env = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"}

    def faults(how: str) -> int:
        ran = subprocess.run([sys.executable, "-c", FAULTS, how], env=env, capture_output=True, text=True, check=True)
        return int(ran.stdout)

    assert faults("reuse") * 10 < faults("leave")
