"""Models that lie, grow or never end: verified, or refused in one line that names the fault, and nothing is written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hostile import cases, plain
from onnx import TensorProto, helper, numpy_helper

from onnxprune.cli import main
from onnxprune.engine import session

CASES = cases()
#: What the refusal says; the others are pruned.
REFUSED = {
    "too_many_floats": "tensor 'w0' has 1,000 values, but its shape [16, 3, 3, 3] needs 432",
    "a_thousand_axes": "tensor 'b0' has 1,001 axes",
    "names_not_utf8": r"the name '\xff\xfeinput' is not UTF-8",
    "node_name_not_utf8": r"the name '\xff\xfe\xfd00' is not UTF-8",
    "huge_range": "tensor 'big' has 4,611,686,018,427,387,904 positions along one axis",
    "huge_expand": "tensor 'big' has 2,147,483,648 positions along one axis",
    "huge_image": "input 'input' takes 13,194,139,533,312 bytes",
    "functions_doubling_40": "call each other so often that inlining them makes more than 262,144 nodes",
    "endless_loop": "the model did not finish a run within 0.3 s: its Loop may never end",
}
#: Verified, but it takes a minute: a graph of 4,000 nodes.
SLOW = {"functions_doubling_12"}


def refusal(capsys: pytest.CaptureFixture[str], *line: str) -> str:
    """The one line of complaint, and that nothing else was written anywhere."""
    before = sorted(os.listdir())
    assert main([*line, "-q"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1 and err.startswith("onnxprune: error: ")
    assert "unexpected" not in err and "Traceback" not in err
    assert sorted(os.listdir()) == before
    return err


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(session.SECONDS_SETTING, "0.3")


@pytest.mark.parametrize("name", sorted(CASES.keys() - SLOW))
def test_verified_or_refused_in_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.onnx").write_bytes(CASES[name])
    line = ("net.onnx", "--macs", "0.8", "--samples", "4", "--effort", "fast", "--threads", "1")
    if name in REFUSED:
        assert REFUSED[name] in refusal(capsys, *line)
    else:
        assert main([*line, "-q"]) == 0
        onnx.checker.check_model("net.pruned.onnx", full_check=True)


def test_a_loop_that_ends_is_no_matter(capsys: pytest.CaptureFixture[str]) -> None:
    model = onnx.ModelProto.FromString(CASES["endless_loop"])
    loop = next(node for node in model.graph.node if node.op_type == "Loop")
    model.graph.initializer.append(numpy_helper.from_array(np.array(3), "three"))
    loop.input[0] = "three"
    onnx.save(model, "net.onnx")
    assert main(["net.onnx", "--macs", "0.8", "--samples", "4", "--effort", "fast", "-q"]) == 0


def test_functions_that_call_each_other_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    model = onnx.ModelProto.FromString(CASES["functions_doubling_40"])
    model.functions[-1].node[0].op_type, model.functions[-1].node[0].domain = "F3", "f"
    onnx.save(model, "net.onnx")
    assert "calls itself without end" in refusal(capsys, "net.onnx")


def _changed(change: object) -> onnx.ModelProto:
    model = plain()
    change(model)  # type: ignore[operator]
    return model


def _input_of(*dims: int) -> object:
    return lambda model: model.graph.input[0].CopyFrom(
        helper.make_tensor_value_info("input", TensorProto.FLOAT, list(dims))
    )


STATED = {
    "too few bytes": (lambda m: m.graph.initializer[0].__setattr__("raw_data", b"1234"), "4 bytes of data, but"),
    "no values": (lambda m: m.graph.initializer[0].ClearField("raw_data"), "0 values, but its shape"),
    "negative size": (lambda m: m.graph.initializer[0].dims.__setitem__(0, -16), "a negative size"),
    "overflowing size": (lambda m: m.graph.initializer[0].dims.__setitem__(0, 2**62), "bytes of data, but its shape"),
    "empty axis beside a huge one": (_input_of(1, 0, 2**31, 2**31), "bytes for one sample"),
    "a type that nobody knows": (
        lambda m: m.graph.input[0].type.tensor_type.__setattr__("elem_type", 99),
        "input 'input' has no element type that onnx knows (99)",
    ),
    "no type at all": (
        lambda m: m.graph.input[0].type.tensor_type.ClearField("elem_type"),
        "input 'input' has no element type that onnx knows (0)",
    ),
    "an input of a thousand axes": (_input_of(*[1] * 1001), "1,001 axes"),
}


@pytest.mark.parametrize("name", STATED)
@pytest.mark.parametrize("command", ["prune", "inspect"])
def test_what_a_file_states_is_checked(name: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    change, said = STATED[name]
    onnx.save(_changed(change), "net.onnx")
    assert said in refusal(capsys, command, "net.onnx")


@pytest.mark.parametrize(
    ("stored", "shape", "values"),
    [
        (TensorProto.INT4, [3], {"int32_data": [1, 2]}),
        (TensorProto.FLOAT16, [2, 2], {"int32_data": [0, 0, 0, 0]}),
        (TensorProto.COMPLEX64, [2], {"float_data": [0, 0, 0, 0]}),
        (TensorProto.STRING, [2], {"string_data": [b"a", b"b"]}),
        (TensorProto.BOOL, [0, 5], {}),
    ],
)
def test_sound_tensors_of_every_kind_pass(stored: int, shape: list[int], values: dict[str, list[object]]) -> None:
    from onnxprune.graph.bounds import check_bounds

    model = plain()
    model.graph.initializer.append(TensorProto(name="more", data_type=stored, dims=shape, **values))
    check_bounds(model, "it")
    if values:
        model.graph.initializer[-1].dims.append(7)
        with pytest.raises(Exception, match="'more' has"):
            check_bounds(model, "it")


# -- found by tools/fuzz -----------------------------------------------------------------------------------------------


def _after_r1(model: onnx.ModelProto, *nodes: onnx.NodeProto, **constants: list[int]) -> None:
    """Put nodes before the pooling; the pooling reads the last one's output."""
    place = next(k for k, node in enumerate(model.graph.node) if node.op_type == "GlobalAveragePool")
    kept = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*kept[:place], *nodes, *kept[place:]])
    model.graph.node[place + len(nodes)].input[0] = nodes[-1].output[0]
    model.graph.initializer.extend(numpy_helper.from_array(np.array(v), k) for k, v in constants.items())


def _negative_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -(2**31)


def _constant_output(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Add", ["b0", "b1"], ["fixed"]))
    model.graph.output.append(helper.make_tensor_value_info("fixed", TensorProto.FLOAT, [16]))


def _sizes_of_another_rank(model: onnx.ModelProto) -> None:
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    _after_r1(model, helper.make_node("Resize", ["r1", "", "", "three"], ["resized"], "resize"), three=[16, 8, 8])


def _constant_without_a_value(model: onnx.ModelProto) -> None:
    _after_r1(model, helper.make_node("Constant", [], ["sizes"]), helper.make_node("Reshape", ["r1", "sizes"], ["shaped"]))


@pytest.mark.parametrize(
    "change", [_negative_batch, _constant_output, _sizes_of_another_rank, _constant_without_a_value]
)
def test_what_was_found_stays_mended(change: object, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(_changed(change), "net.onnx")
    code = main(["net.onnx", "--macs", "0.8", "--samples", "4", "--effort", "fast", "--threads", "1", "-q"])
    err = capsys.readouterr().err
    assert "unexpected" not in err and "Traceback" not in err
    if change in (_sizes_of_another_rank, _constant_without_a_value):
        assert code == 2 and err.count("onnxprune: error: ") == 1
    else:
        assert code == 0


@pytest.mark.parametrize("budget", ["macs", "params", "size", "latency", "max-drop", ""])
def test_a_model_that_multiplies_nothing(budget: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An embedding whose columns are added: there are channels, parameters and bytes to save, but no MACs."""
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        g (int64[n,4] x) => (float[n,4] y) { e = Gather(table, x)  r = Relu(e)  y = ReduceSum<keepdims = 0>(r, last) }""")
    table = np.random.default_rng(0).standard_normal((10, 64)).astype(np.float32)
    model.graph.initializer.extend([numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([-1]), "last")])
    onnx.save(model, "net.onnx")
    assert main(["inspect", "net.onnx"]) == 0
    assert "0 MACs" in capsys.readouterr().out
    code = main(["net.onnx", *([f"--{budget}", "0.8"] if budget else []), "--samples", "8", "--threads", "1", "-q"])
    out, err = capsys.readouterr()
    assert "unexpected" not in err and "Traceback" not in err
    assert code == 0 if budget in ("params", "size") else code == 2 or budget == "latency"
    assert ("there are no MACs to save; give --params or --size" in err) == (budget in ("macs", "max-drop", ""))


# -- what is shown -----------------------------------------------------------------------------------------------------


def test_no_name_reaches_a_reader_unescaped(capsys: pytest.CaptureFixture[str]) -> None:
    """On stdout, on stderr, in pages and in JSON, of every command, and of file names too."""
    file = "net\x1b[2J\u202e.onnx"
    onnx.save(plain("\x1b[31mRED\x1b]0;owned\x07\x1b[2Ja\0b\rc\u202ed"), file)
    node = onnx.load(file).graph.node[0].name
    lines = (
        [file, "--macs", "0.8", "--samples", "4", "--effort", "fast", "--report", "r.html", "--plan", "p\x07.json"],
        [file, "--macs", "0.8", "--samples", "4", "--effort", "fast", "--json"],
        [file, "--macs", "0.8", "--shape", f"{node}=1"],
        ["inspect", file, "-v", "--report", "i.html"],
        ["inspect", file, "--json"],
        ["why", file, node],
        ["why", file, f"{node}x"],
        ["apply", file, "p\x07.json", "--report", "a.html"],
        ["compare", file, file, "--samples", "2"],
        [f"{file}x"],
    )
    codes = [main(line) for line in lines]
    assert codes == [0, 0, 2, 0, 0, 0, 2, 0, 0, 2]
    texts = [*capsys.readouterr(), *(Path(page).read_text(encoding="utf-8") for page in ("r.html", "i.html", "a.html"))]
    hidden = {c for text in texts for c in text if c != "\n" and (ord(c) < 32 or 127 <= ord(c) < 160 or c == "\u202e")}
    assert hidden == set()
    assert "\\x1b[2J\\u202e.onnx" in texts[0]


def test_a_name_of_5000_characters_is_not_quoted_whole(capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(plain("n" * 5000), "net.onnx")
    err = refusal(capsys, "why", "net.onnx", "x" * 5000)
    assert len(err) < 2500
    assert main(["inspect", "net.onnx"]) == 0
    assert len(capsys.readouterr().out) < 8000


# -- memory ------------------------------------------------------------------------------------------------------------

PEAK = """
import resource, subprocess, sys
done = subprocess.run([sys.executable, "-m", "onnxprune", *sys.argv[1:]], capture_output=True, text=True)
print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10, done.stderr, end="")
"""


def measured(*line: str) -> tuple[int, int, str]:
    """Exit code, peak memory in MiB, stderr."""
    done = subprocess.run([sys.executable, "-c", PEAK, *line], capture_output=True, text=True, check=True, timeout=120)
    code, peak, err = done.stdout.split(" ", 2)
    return int(code), int(peak), err


@pytest.mark.skipif(sys.platform != "linux", reason="bounded by the system")
def test_memory_bounds_the_whole_run() -> None:
    onnx.save(plain(), "net.onnx")
    np.savez_compressed("zeros.npz", input=np.zeros((400_000, 3, 8, 8), np.float32))
    code, peak, err = measured("net.onnx", "--data", "zeros.npz", "--memory", "500MB", "-q")
    assert (code, err.count("\n")) == (2, 1)
    assert "unpacks to 307,200,128 bytes" in err and "write it uncompressed with numpy.savez" in err
    assert peak < 300
    code, peak, err = measured("net.onnx", "--macs", "0.8", "--samples", "4", "--memory", "10MB", "-q")
    assert code == 2 and "--memory 10,000,000: the program itself takes" in err
    code, _, err = measured("net.onnx", "--macs", "0.8", "--samples", "4", "--memory", "100MB", "-q")
    assert code == 2 and "--memory 100,000,000: the program and copies of this model need at least" in err


@pytest.mark.skipif(sys.platform != "linux", reason="bounded by the system")
def test_a_run_that_asks_for_more_than_allowed_is_refused() -> None:
    """A graph whose values take gigabytes, though nothing that it states is large."""
    model = plain(image=64)
    place = next(k for k, node in enumerate(model.graph.node) if node.op_type == "GlobalAveragePool")
    model.graph.initializer.append(numpy_helper.from_array(np.array([400, 1, 1, 1]), "sizes"))
    tile = helper.make_node("Tile", ["r1", "sizes"], ["tiled"], "tile")
    mean = helper.make_node("ReduceMean", ["tiled"], ["mean"], "mean", axes=[0], keepdims=1)
    kept = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*kept[:place], tile, mean, *kept[place:]])
    model.graph.node[place + 2].input[0] = "mean"
    onnx.save(model, "net.onnx")
    code, peak, err = measured("net.onnx", "--macs", "0.8", "--samples", "64", "--memory", "250MB", "-q")
    assert code == 2 and err.count("\n") == 1, err
    assert peak < 250 + 300


@pytest.mark.skipif(sys.platform != "linux", reason="bounded by the system")
def test_20000_channels_need_no_matrix_of_them_all() -> None:
    """One number for each pair of them would take 1.6 GB."""
    draw = np.random.default_rng(0)
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[n,3,4,4] x) => (float[n,8] y) {
        c = Conv(x, a)  r = Relu(c)  d = Conv(r, b)  p = GlobalAveragePool(d)  y = Flatten(p) }""")
    for name, shape in (("a", (20_000, 3, 1, 1)), ("b", (8, 20_000, 1, 1))):
        weight = draw.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, name))
    onnx.save(model, "net.onnx")
    code, peak, err = measured("net.onnx", "--macs", "0.6", "--samples", "4", "--effort", "fast", "--memory", "500MB", "-q")
    assert (code, err) == (0, "") and peak < 500
    assert onnx.load("net.pruned.onnx").graph.initializer[0].dims[0] <= 12_000


def test_a_chain_of_2000_nodes_is_no_matter(capsys: pytest.CaptureFixture[str]) -> None:
    """Its analysis once grew with the square of the nodes."""
    model = plain()
    model.graph.node[-1].output[0] = "h0"
    for k in range(2000):
        model.graph.node.append(helper.make_node("Relu", [f"h{k}"], [f"h{k + 1}" if k < 1999 else "out"], f"n{k}"))
    onnx.save(model, "net.onnx")
    assert main(["inspect", "net.onnx", "-v"]) == 0
    assert "2,007 nodes" in capsys.readouterr().out
