"""Loading says in one line what is wrong with a file; saving leaves a whole file or none."""

from __future__ import annotations

import errno
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError, OutputError
from onnxprune.graph.execute import run_node
from onnxprune.graph.load import load
from onnxprune.graph.save import check_writable, save
from onnxprune.graph.tensors import all_tensors, map_tensors, model_bytes


def small(width: int = 64) -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.arange(width * width, dtype=np.float32).reshape(width, width), "w")
    bias = helper.make_tensor("b", TensorProto.FLOAT, [width], np.ones(width))
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"], name="fc"),
            helper.make_node("Add", ["h", "b"], ["y"]),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", width])],
        [weight, bias],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def packed(model: onnx.ModelProto) -> bytes:
    return model.SerializeToString(deterministic=True)


def refusal(source: Path | onnx.ModelProto) -> str:
    with pytest.raises(ModelError) as caught:
        load(source)
    message = str(caught.value)
    assert "\n" not in message and (";" in message)
    return message


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    path.write_bytes(packed(small()))
    return path


@pytest.fixture
def split(tmp_path: Path) -> Path:
    path = tmp_path / "s.onnx"
    save(small(), path, external=True)
    return path


def test_loads_a_file(plain: Path) -> None:
    loaded = load(str(plain))
    assert packed(loaded.proto) == packed(small())
    assert (loaded.path, loaded.external, loaded.complaints) == (plain, False, ())
    assert loaded.file_bytes == plain.stat().st_size


def test_loads_a_proto_without_touching_it() -> None:
    model = small()
    before = packed(model)
    loaded = load(model)
    assert packed(model) == before and packed(loaded.proto) == before
    assert loaded.path is None and loaded.file_bytes == model.ByteSize() == model_bytes(model)


def test_external_data_comes_into_memory(split: Path) -> None:
    loaded = load(split)
    assert packed(loaded.proto) == packed(small())
    assert loaded.external
    assert loaded.file_bytes == split.stat().st_size + Path(f"{split}.data").stat().st_size


def test_external_data_without_length_runs_to_its_end(split: Path) -> None:
    model = onnx.load(split, load_external_data=False)
    entries = model.graph.initializer[0].external_data
    kept = [(one.key, one.value) for one in entries if one.key != "length"]
    del entries[:]
    for key, value in kept:
        entries.add(key=key, value=value)
    split.write_bytes(packed(model))
    assert packed(load(split).proto) == packed(small())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"just some text, no model at all\n" * 9, "not an ONNX model"),
        (np.random.default_rng(0).bytes(4096), "not an ONNX model"),
        (b"\x18\x00\x00\x00ORTM" + bytes(64), "ORT-format"),
        (b"\x18\x00\x00\x00TFL3" + bytes(64), "TensorFlow Lite"),
        (pickle.dumps({"w": 1}), "pickle"),
        (b"\x89HDF\r\n\x1a\n" + bytes(9), "HDF5"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (onnx.ModelProto(ir_version=8).SerializeToString(), "no graph"),
        (packed(helper.make_model(helper.make_graph([], "g", [], []))), "without nodes"),
    ],
)
def test_refuses_what_is_no_model(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    message = refusal(path)
    assert said in message and str(path) in message


def test_refuses_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"")
    assert "zip archive" in refusal(path)


def test_refuses_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert "does not exist; " in refusal(tmp_path / "none.onnx")
    (tmp_path / "net.onnx").touch()
    assert "does not exist; " in refusal(tmp_path / "other.onnx")
    assert f"did you mean {tmp_path / 'net.onnx'}?" in refusal(tmp_path / "nett.onnx")
    assert "download the model first" in refusal(Path("https://somewhere/net.onnx"))
    assert "is a folder" in refusal(tmp_path)


def test_refuses_a_file_it_may_not_read(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path, most: int) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("onnxprune.graph.file.read_ordinary", denied)
    assert "permission denied" in refusal(plain)


def test_every_truncation_is_refused_and_most_are_named(plain: Path) -> None:
    data = plain.read_bytes()
    named = 0
    cuts = [*range(1, 60), *range(60, len(data), 997), len(data) - 1]
    for cut in cuts:
        plain.write_bytes(data[:cut])
        message = refusal(plain)
        named += "truncated" in message or "only the start of one" in message
    assert named == len(cuts)


def test_missing_data_file_is_named_with_its_tensor(split: Path) -> None:
    Path(f"{split}.data").unlink()
    message = refusal(split)
    assert "s.onnx.data" in message and "'w'" in message and "missing" in message


def test_short_data_file_is_refused(split: Path) -> None:
    data = Path(f"{split}.data")
    data.write_bytes(data.read_bytes()[:-5])
    message = refusal(split)
    assert "truncated" in message and "'w'" in message


@pytest.mark.parametrize("location", ["../w.bin", "/etc/passwd", ""])
def test_data_outside_the_folder_is_refused(split: Path, location: str) -> None:
    model = onnx.load(split, load_external_data=False)
    for one in model.graph.initializer[0].external_data:
        if one.key == "location":
            one.value = location
    split.write_bytes(packed(model))
    assert "not inside" in refusal(split)


@pytest.mark.parametrize(("key", "value"), [("offset", "999999"), ("length", "8"), ("offset", "here")])
def test_wrong_data_range_is_refused(split: Path, key: str, value: str) -> None:
    model = onnx.load(split, load_external_data=False)
    for one in model.graph.initializer[0].external_data:
        if one.key == key:
            one.value = value
    split.write_bytes(packed(model))
    assert "'w'" in refusal(split)


def test_proto_with_data_elsewhere_is_refused(split: Path) -> None:
    assert "give the model's path" in refusal(onnx.load(split, load_external_data=False))


def test_newer_versions_are_refused() -> None:
    model = small()
    model.opset_import[0].version = 999
    assert "opset 999" in refusal(model)
    model = small()
    model.ir_version = 99
    assert "IR version 99" in refusal(model)


def test_tensor_of_the_wrong_size_is_refused() -> None:
    model = small()
    model.graph.initializer[0].raw_data = b"1234"
    assert "'w'" in refusal(model)


def test_invalid_graph_is_refused_with_the_complaint() -> None:
    model = small()
    model.graph.node[0].op_type = "NoSuchOperator"
    message = refusal(model)
    assert "NoSuchOperator" in message


def test_small_sins_are_forgiven_and_kept() -> None:
    model = small()
    # Old exporters leave the name of the graph out; onnxruntime does not mind.
    model.graph.ClearField("name")
    assert len(load(model).complaints) == 1


def test_map_tensors_reaches_every_tensor() -> None:
    model = small()
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=helper.make_tensor("t", 1, [1], [1])))
    branch = helper.make_graph([], "b", [], [], [helper.make_tensor("deep", 1, [1], [1])])
    model.graph.node.append(helper.make_node("If", ["k"], ["z"], then_branch=branch, else_branch=branch))
    model.functions.append(
        helper.make_function("d", "f", [], ["o"], [model.graph.node[2]], [helper.make_opsetid("", 17)])
    )
    seen: list[str] = []

    def note(tensor: TensorProto) -> TensorProto:
        seen.append(tensor.name)
        return tensor

    assert packed(map_tensors(model, note)) == packed(model)
    assert sorted(seen) == sorted(tensor.name for tensor in all_tensors(model))
    assert sorted(seen) == ["b", "deep", "deep", "t", "t", "w"]


@pytest.mark.parametrize("external", [False, True])
def test_save_is_deterministic_and_counts(tmp_path: Path, external: bool) -> None:
    first, second = tmp_path / "a" / "m.onnx", tmp_path / "b" / "m.onnx"
    for path in (first, second):
        path.parent.mkdir()
        written = save(small(), path, external)
        assert written == sum(one.stat().st_size for one in path.parent.iterdir())
    names = sorted(one.name for one in first.parent.iterdir())
    assert names == (["m.onnx", "m.onnx.data"] if external else ["m.onnx"])
    for name in names:
        assert (first.parent / name).read_bytes() == (second.parent / name).read_bytes()
    assert packed(load(first).proto) == packed(small())
    onnx.checker.check_model(str(first))


def test_too_large_for_one_file_goes_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.graph.save.ONE_PIECE", 4096)
    save(small(), tmp_path / "m.onnx", external=False)
    assert (tmp_path / "m.onnx.data").exists()


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("after", [0, 1, 2])
def test_failure_leaves_the_old_files(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    external: bool,
    failure: BaseException,
    step: str,
    after: int,
) -> None:
    path = tmp_path / "m.onnx"
    save(small(32), path, external)
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    real, calls = getattr(os, step), []

    def failing(*given: object) -> object:
        calls.append(given)
        if len(calls) == after + 1:
            raise failure
        return real(*given)

    monkeypatch.setattr(os, step, failing)
    try:
        save(small(64), path, external)
    except (KeyboardInterrupt, OutputError) as caught:
        assert isinstance(failure, KeyboardInterrupt) or "disk is full" in str(caught)
    names = {one.name for one in tmp_path.iterdir()}
    assert names == set(before)
    if {name: (tmp_path / name).read_bytes() for name in names} != before:
        # Too late to fail: then the new model is there, whole.
        assert packed(load(path).proto) == packed(small(64))
        assert len(calls) >= (1 + external)


def test_first_save_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.replace

    def failing(source: Path, target: Path) -> None:
        if target == tmp_path / "m.onnx":
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", failing)
    for external in (False, True):
        with pytest.raises(KeyboardInterrupt):
            save(small(), tmp_path / "m.onnx", external)
        assert list(tmp_path.iterdir()) == []


def test_impossible_targets_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for path, said in [
        (tmp_path, "is a folder"),
        (tmp_path / "none" / "m.onnx", "does not exist"),
        (tmp_path / "file" / "m.onnx", "not a folder"),
        (tmp_path / ("n" * 300), "cannot be written"),
    ]:
        with pytest.raises(OutputError, match=said):
            save(small(), path, external=False)
        with pytest.raises(OutputError, match=said):
            check_writable(path, None)

    # Bytes are bounded, not characters.
    check_writable(tmp_path / ("漢" * 80), None)

    def read_only(*given: object) -> object:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("builtins.open", read_only)
    with pytest.raises(OutputError, match="not writable"):
        check_writable(tmp_path / "m.onnx", None)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with names")
def test_what_is_no_ordinary_file_is_not_replaced(tmp_path: Path) -> None:
    pipes = tmp_path / "pipe", tmp_path / "m.onnx.data"
    for pipe in pipes:
        os.mkfifo(pipe)
    for refused in (lambda: check_writable(pipes[0], None), lambda: save(small(), tmp_path / "m.onnx", external=True)):
        with pytest.raises(OutputError, match="is not a regular file"):
            refused()
    assert all(pipe.is_fifo() for pipe in pipes)


def test_the_input_is_never_overwritten(tmp_path: Path, split: Path) -> None:
    link, hard = tmp_path / "link.onnx", tmp_path / "hard.onnx"
    link.symlink_to(split)
    os.link(split, hard)
    for path in (split, tmp_path / "." / "s.onnx", link, hard):
        with pytest.raises(OutputError, match="input model"):
            check_writable(path, split)
    check_writable(tmp_path / "other.onnx", split)
    assert not (tmp_path / "other.onnx").exists()
    with pytest.raises(OutputError, match="belongs to the input model"):
        check_writable(split.with_name(split.name + ".data"), split)
    # The data of the output would land on the data of the input.
    renamed = tmp_path / "renamed.onnx"
    split.rename(renamed)
    with pytest.raises(OutputError, match="belongs to the input"):
        check_writable(split, renamed)


# -- running one node -----------------------------------------------------------------------------------------


def test_a_node_that_divides_by_zero_says_nothing_of_it(recwarn: pytest.WarningsRecorder) -> None:
    # Buckets of distances are folded so: the logarithm of zero, whose bucket another branch replaces.
    zero = np.zeros(1, dtype=np.float32)
    (found,) = run_node(helper.make_node("Log", ["x"], ["y"]), {"": 17}, [zero])
    run_node(helper.make_node("Cast", ["x"], ["y"], to=TensorProto.INT64), {"": 17}, [found])
    assert np.isneginf(found).all() and not recwarn.list
