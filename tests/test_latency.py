"""Time as a cost: signatures, tables and their grids, the cache, widths that are never slower, the closed loop."""

from __future__ import annotations

import base64
import itertools
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import made_up
import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnxprune import prune
from onnxprune.budget.allocate import allocate
from onnxprune.budget.cost import macs, sizes, stepped_macs
from onnxprune.budget.curve import Curve
from onnxprune.budget.rounding import TABLE, Blocks, blocks_of, faster_widths, tiers
from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.open import couple
from onnxprune.errors import BudgetError
from onnxprune.latency import cache, device
from onnxprune.latency.cost import Latency, latency
from onnxprune.latency.operators import operator_times
from onnxprune.latency.signature import Signature, Timed, timed_layers
from onnxprune.latency.synthetic import entries_of, layers_file, widths
from onnxprune.latency.table import grid_of, read_table, table_of
from onnxprune.linear.form import layers
from onnxprune.report import wording
from onnxprune.result import Change
from onnxprune.workflows.inspect import layers_to_time

Array = np.ndarray
DEMO = str(Path(__file__).resolve().parents[1] / "models" / "demo.onnx")


@pytest.fixture(scope="module")
def demo() -> Coupling:
    return couple(onnx.load(DEMO), {}, None)


def signature(op: str, groups: int, inputs: int, outputs: int) -> Signature:
    space, kernel = ((9,), ()) if op == "MatMul" else ((10, 10), (3, 3))
    return Signature(op, space, kernel, (1, 1), (1, 1), (1, 1, 1, 1), groups, inputs, outputs, "float32")


def proportional(document: device.Json) -> device.Json:
    """A table by a machine whose layers take as many nanoseconds as they have inputs times outputs."""
    points: dict[str, list[list[float]]] = {}
    for entry in document["entries"]:
        if entry["key"] in ("widths", "inputs", "byte", "mac"):
            continue
        model = onnx.load_from_string(base64.b64decode(entry["model"]))
        outs = [int(n.name.split(".")[1]) for n in model.graph.node if n.name.count(".") == 1 and n.name[0] == "l"]
        points.setdefault(entry["key"], []).extend([entry["in"], w, 1e-9 * entry["in"] * w] for w in outs)
    return {
        device.TABLE: 1, "device": "abacus", "runtime": "fingers 10", "threads": 1, "block": 1, "align": 1,
        "unaligned": 1.0, "per_byte": 0.0, "per_mac": 0.0, "layers": points,
    }  # fmt: skip


def demo_cost(demo: Coupling) -> tuple[Latency, tuple[Timed, ...]]:
    timed = timed_layers(demo, layers(demo))
    return latency(demo, timed, table_of(proportional(layers_file(t.signature for t in timed)))), timed


# -- what is timed -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        signature("Conv", 1, 40, 24),
        signature("Conv", 1, 3, 8),
        signature("Conv", 24, 1, 24),
        signature("Conv", 4, 6, 32),
        signature("ConvTranspose", 1, 16, 20),
        signature("ConvTranspose", 8, 1, 8),
        signature("MatMul", 1, 50, 33),
    ],
    ids=lambda s: s.key,
)
def test_every_kind_of_layer_is_timed_at_its_full_width_and_below(
    layer: Signature, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The models load, run, and name their layers so that the profile finds each."""
    monkeypatch.setattr(device, "SECONDS", 0.0)
    entries = entries_of(layer)
    found: set[tuple[int, int]] = set()
    for entry in entries:
        model = base64.b64decode(entry["model"])
        onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
        feeds = {name: np.ones(shape, entry["dtype"]) for name, shape in entry["inputs"].items()}
        profile = device.onnxruntime_seconds(model, feeds, 1)
        seen = {int(w[1]) for name in profile if (w := device.WIDTH.search(name)) is not None}
        assert seen
        found |= {(entry["in"], width) for width in device.time_entry(entry, "onnxruntime", 1)}
        assert len(json.dumps(entry)) < 50_000, "weights are not stored"
    assert (layer.inputs, layer.outputs) in found
    assert all(i <= layer.inputs and o <= layer.outputs for i, o in found)
    if layer.live_inputs:
        assert found == set(itertools.product(widths(layer.inputs), widths(layer.outputs)))


def test_huge_weights_are_timed_in_part_and_scaled() -> None:
    entry = entries_of(signature("MatMul", 1, 25_088, 4_096))[-1]
    shapes = [
        onnx.numpy_helper.to_array(t) for t in onnx.load_from_string(base64.b64decode(entry["model"])).graph.initializer
    ]
    assert max(int(np.prod(s)) for s in shapes) <= 1 << 24
    assert entry["scale"] == pytest.approx(25_088 * 4_096 / (1 << 24), rel=1e-3)


def test_every_layer_of_the_demo_has_a_signature_of_its_shapes(demo: Coupling) -> None:
    for one in timed_layers(demo, layers(demo)):
        weight = demo.facts.shapes[demo.graph.nodes[one.node].inputs[1] or ""]
        groups = demo.graph.nodes[one.node].integer("group", 1)
        assert int(np.prod(weight)) == one.signature.inputs * one.signature.outputs * int(np.prod(one.signature.kernel))
        assert one.signature.groups == groups


def test_the_timer_tells_blocks_rates_and_every_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """On an invented machine that pads output channels to 16 and slows down for inputs that are no multiple of 4."""

    def invented(model: bytes, feeds: Mapping[str, Array], threads: int) -> dict[str, list[float]]:
        found = {}
        channels = feeds["x"].shape[1] if "x" in feeds else 1
        for node in onnx.load_from_string(model).graph.node:
            if node.op_type in ("Conv", "MatMul", "Add") and node.name.count(".") == 1:
                padded = -(-int(node.name.split(".")[1]) // 16) * 16
                found[f"{node.op_type} {node.name}_nchwc"] = [padded * channels * (1.4 if channels % 4 else 1.0) * 1e-9]
                found[f"ReorderOutput {node.name}_reorder"] = [1.0]
        return found

    monkeypatch.setattr(device, "RUNTIMES", {"onnxruntime": invented})
    layer = signature("Conv", 1, 32, 48)
    document = layers_file([layer])
    table = table_of(device.measure(json.loads(json.dumps(document)), "onnxruntime", 1))
    assert table.blocks == Blocks(16, 4)
    assert table.unaligned == pytest.approx(1.4 * 61 / 64)
    assert table.per_byte > 0 < table.per_mac
    grid = table.layers[layer.key]
    np.testing.assert_allclose(grid.seconds, 1e-9 * np.outer(grid.inputs, grid.outputs))


# -- tables ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_no_width_is_slower_than_a_larger_one_in_a_grid(seed: int) -> None:
    generator = np.random.default_rng(seed)
    points = [[float(i), float(o), generator.random()] for i in (8, 16, 32) for o in (4, 12, 20, 64)]
    generator.shuffle(points)
    grid = grid_of(points)
    assert (np.diff(grid.seconds, axis=0) >= 0).all()
    assert (np.diff(grid.seconds, axis=1) >= 0).all()
    assert grid.seconds[-1, -1] == next(s for i, o, s in points if (i, o) == (32, 64))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({device.TABLE: 2}, "not a latency table"),
        ({"block": None}, "lacks or misspells"),
        ({"per_byte": "fast"}, "lacks or misspells"),
        ({"layers": {"Conv": [[1, 2]]}}, "points are"),
        ({"layers": {"Conv": [[1, 2, 0.1], [2, 4, 0.1]]}}, "gaps"),
    ],
)
def test_a_malformed_table_is_refused(change: device.Json, match: str) -> None:
    with pytest.raises(BudgetError, match=match):
        table_of({**proportional(layers_file([])), **change})


def test_unreadable_tables_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    other = tmp_path / "other.json"
    other.write_text("{}")
    for path in (broken, other, tmp_path / "none.json", tmp_path):
        with pytest.raises(BudgetError, match=r"cannot read the latency table|is not a latency table") as refused:
            read_table(path)
        assert str(path) in str(refused.value)


def test_a_table_of_another_model_is_refused_with_the_way_to_one_that_fits(demo: Coupling) -> None:
    table = table_of(proportional(layers_file([signature("Conv", 1, 8, 8)])))
    with pytest.raises(BudgetError, match="inspect MODEL --layers FILE"):
        latency(demo, timed_layers(demo, layers(demo)), table)


def test_latency_is_the_sum_of_the_layers_at_the_widths_of_the_cut(demo: Coupling) -> None:
    """With layers as slow as they have inputs times outputs: bilinear, hence exact at every width above the lowest."""
    cost, timed = demo_cost(demo)
    generator = np.random.default_rng(0)
    whole = sizes(demo)
    for _ in range(20):
        kept = np.asarray([generator.integers(min(n, 16), n + 1) for n in whole])
        keep = np.zeros(demo.unit_count, dtype=np.bool_)
        for group, count in zip(demo.groups, kept, strict=True):
            keep[group.units[:count]] = True
        masks = demo.masks(keep)
        wanted = sum(
            1e-9 * (masks(*t.inputs).sum() if t.signature.live_inputs else 1) * masks(*t.outputs).sum() for t in timed
        )
        assert cost(kept.astype(np.float64)) == pytest.approx(wanted, rel=1e-9)
        assert cost.many(np.stack([kept, whole]).astype(np.float64))[0] == pytest.approx(wanted, rel=1e-9)


# -- the cache ---------------------------------------------------------------------------------------------------------


def test_what_was_timed_once_is_not_timed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[int] = []

    def fake(document: device.Json, runtime: str, threads: int, told: object) -> device.Json:
        timed.append(len(document["entries"]))
        return proportional(document)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cache, "measure", fake)
    monkeypatch.setattr(cache.sys, "platform", "linux")
    first, second = signature("Conv", 1, 32, 32), signature("Conv", 1, 32, 64)
    assert set(cache.measured_table([first], 1, lambda n: None).layers) == {first.key}
    assert cache.entry_count([first], 1) == 0
    assert set(cache.measured_table([first, second], 1, lambda n: None).layers) == {first.key, second.key}
    cache.measured_table([first, second], 1, lambda n: None)
    assert len(timed) == 2
    assert timed[0] == timed[1] == len(layers_file([first])["entries"])
    assert cache.entry_count([first], 2) > 0, "another number of threads is another table"


def test_a_cache_that_cannot_be_used_only_costs_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    monkeypatch.setattr(cache, "measure", lambda document, *rest: proportional(document))
    layer = signature("Conv", 1, 32, 32)
    for _ in range(2):
        assert set(cache.measured_table([layer], 1, lambda n: None).layers) == {layer.key}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache.measured_table([layer], 1, lambda n: None)
    for file in (tmp_path / "onnxprune").iterdir():
        file.write_text("no JSON")
    assert set(cache.measured_table([layer], 1, lambda n: None).layers) == {layer.key}


# -- widths ------------------------------------------------------------------------------------------------------------


def test_every_machine_has_blocks() -> None:
    assert blocks_of("x86_64", frozenset({"sse", "avx512f"})) == Blocks(16, 4)
    assert blocks_of("AMD64", frozenset()) == Blocks(8, 4)
    for machine in ("aarch64", "arm64", "riscv64", ""):
        assert blocks_of(machine, frozenset()) == TABLE[-1][2]


@pytest.mark.parametrize("blocks", [Blocks(16, 4), Blocks(8, 4), Blocks(8, 1)], ids=str)
def test_a_preferred_width_is_faster_than_every_larger_one(demo: Coupling, blocks: Blocks) -> None:
    whole = sizes(demo)
    time = stepped_macs(demo, blocks.block, blocks.align)
    fast, aligned, every = tiers(time, whole, None, blocks)
    for g, size in enumerate(whole):
        trial = np.repeat(whole[None].astype(np.float64), size, axis=0)
        trial[:, g] = np.arange(1, size + 1)
        seconds = time.many(trial)
        for width in range(1, size):
            assert (width in fast[g]) == (seconds[width - 1] < seconds[width:].min() * (1 - 1e-6))
        assert set(fast[g]) <= set(aligned[g]) <= set(every[g])
        assert fast[g][-1] == size
        np.testing.assert_array_equal(fast[g], faster_widths(time, whole, g))


def test_a_group_of_one_block_is_left_alone(demo: Coupling) -> None:
    """Half of 16 channels takes as long as all of them where kernels compute 16 at once."""
    fast = tiers(stepped_macs(demo, 16, 4), sizes(demo), None, Blocks(16, 4))[0]
    for widths_, size in zip(fast, sizes(demo), strict=True):
        if size <= 16:
            assert list(widths_) == [size]
        assert len(widths_) == -(-size // 16)


def test_the_users_multiple_is_the_only_tier(demo: Coupling) -> None:
    for multiple in (1, 8, 32):
        (only,) = tiers(macs(demo), sizes(demo), multiple, Blocks(16, 4))
        for allowed, size in zip(only, sizes(demo), strict=True):
            assert all(w % min(multiple, size) == 0 or w == size for w in allowed)


def test_steps_are_exact_at_multiples(demo: Coupling) -> None:
    exact, stepped = macs(demo), stepped_macs(demo, 1, 1)
    whole = sizes(demo).astype(np.float64)
    generator = np.random.default_rng(1)
    for _ in range(5):
        kept = np.asarray([generator.integers(1, n + 1) for n in whole], dtype=np.float64)
        assert stepped(kept) == pytest.approx(exact(kept))
        assert stepped_macs(demo, 16, 1)(kept) >= exact(kept)


# -- budgets in time ---------------------------------------------------------------------------------------------------


def test_a_table_steers_the_cut(demo: Coupling, tmp_path: Path) -> None:
    """Where one layer takes nearly all the time, its widths are what goes."""
    cost, timed = demo_cost(demo)
    document = proportional(layers_file(t.signature for t in timed))
    slow = max(timed, key=lambda t: t.signature.kernel == (3, 3) and t.signature.outputs).signature.key
    document["layers"][slow] = [[i, o, s * 1e4] for i, o, s in document["layers"][slow]]
    table = tmp_path / "table.json"
    table.write_text(json.dumps(document))
    result = prune(DEMO, None, latency=0.5, latency_table=table, refit="none", samples=16, threads=1)
    measured = latency(demo, timed, table_of(document))
    kept = np.asarray([group.after for group in result.report.groups if group.locked is None], dtype=np.float64)
    whole = sizes(demo).astype(np.float64)
    assert measured(kept) <= 0.5 * measured(whole)
    assert macs(demo)(kept) > 0.5 * macs(demo)(whole)


@pytest.mark.parametrize("skew", [0.4, 0.8, 1.0, 1.25, 3.0])
def test_the_loop_closes_on_what_is_measured(skew: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine that is off by ``skew`` from its own table."""
    asked = 0.7

    def paired(before: onnx.ModelProto, after: onnx.ModelProto, feeds: object, engine: object) -> object:
        ratio = weight_of(after) / weight_of(before)
        return Change(1.0, ratio**skew), (0.0, 0.0)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cache, "measure", lambda document, *rest: proportional(document))
    monkeypatch.setattr("onnxprune.pipeline.search.latency.compare_latency", paired)
    result = prune(DEMO, None, latency=asked, refit="none", samples=16, threads=1)
    ratio = (weight_of(result.model) / weight_of(onnx.load(DEMO))) ** skew
    assert asked * 0.8 <= ratio <= asked


def weight_of(model: onnx.ModelProto) -> float:
    """Σ inputs · outputs of convolutions and products: the time on the machine of :func:`proportional`."""
    coupling = couple(model, {}, None)
    return sum(t.signature.inputs * t.signature.outputs for t in timed_layers(coupling, layers(coupling)))


def test_a_latency_out_of_reach_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cache, "measure", lambda document, *rest: proportional(document))
    monkeypatch.setattr("onnxprune.pipeline.search.latency.compare_latency", lambda *_: (Change(1.0, 0.9), (0.0, 0.0)))
    with pytest.raises(BudgetError, match=r"--latency 0.3 cannot be met: .* 0.90 of the original's time; allow more"):
        prune(DEMO, None, latency=0.3, refit="none", samples=16, threads=1)


def test_the_allocator_takes_time_as_it_takes_macs(demo: Coupling) -> None:
    cost, _ = demo_cost(demo)
    curves = [Curve(np.linspace(1, 0, len(g) + 1), np.arange(1, len(g) + 1)) for g in demo.groups]
    whole = sizes(demo).astype(np.float64)
    for share in (0.9, 0.6, 0.4):
        kept = allocate(cost, curves, share * cost(whole)).astype(np.float64)
        assert cost(kept) <= share * cost(whole)


# -- looking -----------------------------------------------------------------------------------------------------------


def test_operators_are_those_that_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "SECONDS", 0.0)
    model = onnx.load(DEMO)
    name = model.graph.input[0].name
    shape = [max(1, d.dim_value) for d in model.graph.input[0].type.tensor_type.shape.dim]
    rows = operator_times(model, model, {name: np.zeros(shape, np.float32)}, 1)
    assert "Conv" in rows[0].operator
    assert all(row.milliseconds.before >= 0 for row in rows)
    assert [r.milliseconds.before for r in rows] == sorted((r.milliseconds.before for r in rows), reverse=True)
    session = ort.InferenceSession(DEMO, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].name == name


def test_the_layers_file_is_json_and_small() -> None:
    document = layers_to_time(DEMO)
    assert document[device.LAYERS] == 1
    assert len(json.dumps(document)) < 500_000


@pytest.mark.parametrize(("after", "told"), [(5.0, False), (9.999, True), (10.0, True), (13.0, True)])
def test_a_result_that_is_not_faster_says_so_first(after: float, told: bool) -> None:
    report = replace(made_up.report(1), latency_ms=Change(10.0, after), latency_spread=(0.1, 0.1))
    assert wording.verdict(report).startswith("NOT FASTER") == told
    assert ("--latency 0.7 ('onnxprune help faster')" in wording.verdict(report)) == told


@pytest.mark.parametrize(
    ("layers_", "table", "said"),
    [
        ("gone.json", "table.json", "gone.json: No such file or directory"),
        ("folder", "table.json", "folder: Is a directory"),
        ("text.json", "table.json", "text.json: not a layers file (Expecting value"),
        ("list.json", "table.json", "list.json: not a layers file; write one with 'onnxprune inspect"),
        ("other.json", "table.json", "other.json: not a layers file: no 'onnxprune_layers': 1"),
        ("cut.json", "table.json", "cut.json: not a whole layers file (KeyError: 'entries')"),
        ("cut.json", "gone/table.json", "gone/table.json: No such file or directory"),
        ("cut.json", "folder", "folder: Is a directory"),
        ("cut.json", "t" * 300, "File name too long"),
    ],
)
def test_the_tool_for_the_device_fails_in_one_line(tmp_path: Path, layers_: str, table: str, said: str) -> None:
    (tmp_path / "folder").mkdir()
    for name, text in {"text": "x", "list": "[]", "other": "{}", "cut": json.dumps({device.LAYERS: 1})}.items():
        (tmp_path / f"{name}.json").write_text(text)
    tool = Path(__file__).resolve().parents[1] / "tools" / "measure_latency_table.py"
    done = subprocess.run(
        [sys.executable, tool, layers_, table], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "table.json").exists()
