"""Every file that comes in is an ordinary one inside its bounds, and every file that goes out is whole and as private
as the one it replaces."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest
from graphs import Sketch
from hostile import plain
from PIL import Image

from onnxprune.cli import main
from onnxprune.errors import ModelError
from onnxprune.graph.load import load

QUICK = ["--macs", "0.8", "--samples", "4", "--effort", "fast", "--threads", "1", "-q"]
posix = pytest.mark.skipif(os.name != "posix", reason="links and pipes of a POSIX system")


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    onnx.save(plain(), "net.onnx")

    def hung(*_: object) -> None:
        raise AssertionError("waits for a file that never ends")

    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def refusal(capsys: pytest.CaptureFixture[str], *line: str) -> str:
    capsys.readouterr()
    before = sorted(os.listdir())
    assert main(list(line)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "unexpected" not in err, err
    assert sorted(os.listdir()) == before
    return err


# -- pipes, devices and what the system shows --------------------------------------------------------------------------


def _fifo(name: str) -> str:
    os.mkfifo(name)
    return name


def _linked(name: str, target: str) -> str:
    os.symlink(target, name)
    return name


DOORS: dict[str, tuple[str, Callable[[str], list[str]]]] = {
    "model": ("m.onnx", lambda name: [name]),
    "model of inspect": ("m.onnx", lambda name: ["inspect", name]),
    "second model": ("m.onnx", lambda name: ["compare", "net.onnx", name, "-q"]),
    "npz": ("d.npz", lambda name: ["net.onnx", "--data", name, "-q"]),
    "npy": ("d.npy", lambda name: ["net.onnx", "--data", name, "-q"]),
    "picture": ("d.png", lambda name: ["net.onnx", "--data", name, "-q"]),
    "folder": ("d", lambda name: ["net.onnx", "--data", name, "-q"]),
    "test data": ("t.npz", lambda name: ["net.onnx", "--test", name, "-q"]),
    "function": ("f.py", lambda name: ["net.onnx", "--data", f"{name}:f", "-q"]),
    "metric": ("f.py", lambda name: ["net.onnx", "--eval", f"{name}:f", "-q"]),
    "plan": ("p.json", lambda name: ["apply", "net.onnx", name, "-q"]),
    "options": ("o.toml", lambda name: ["net.onnx", "--config", name, "-q"]),
    "table": ("t.json", lambda name: ["net.onnx", "--latency", "0.5", "--latency-table", name, "-q"]),
}


@posix
@pytest.mark.parametrize(
    "what", [_fifo, lambda name: _linked(name, "/dev/zero"), lambda name: _linked(name, "/dev/tty")]
)
@pytest.mark.parametrize("door", DOORS)
def test_pipes_and_devices_are_refused_unopened(
    door: str, what: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    name, line = DOORS[door]
    assert what(name) in refusal(capsys, *line(name))


@posix
def test_a_pipe_among_pictures_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    os.mkdir("photos")
    Image.new("RGB", (8, 8)).save("photos/a.png")
    os.mkfifo("photos/b.png")
    assert "cannot read image photos/b.png: it is not a regular file" in refusal(
        capsys, "net.onnx", "--data", "photos", "-q"
    )


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc")
def test_what_the_system_shows_is_no_data(capsys: pytest.CaptureFixture[str]) -> None:
    os.mkdir("photos")
    os.symlink("/proc/self", "photos/link")
    for source in ("/proc/self", "/dev/fd", "/sys"):
        assert "is a system folder" in refusal(capsys, "net.onnx", "--data", source, "-q")
    assert "no images in photos" in refusal(capsys, "net.onnx", "--data", "photos", "-q")


@posix
def test_a_link_to_where_one_came_from_is_not_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.makedirs("a/photos")
    Image.new("RGB", (8, 8)).save("a/beside.png")
    os.symlink("..", "a/photos/up")
    os.symlink("/", "a/photos/root")
    assert "no images in a/photos" in refusal(capsys, "net.onnx", "--data", "a/photos", "-q")


# -- external data -----------------------------------------------------------------------------------------------------


def apart(folder: str | Path) -> Path:
    """A model in ``folder`` whose weights are in ``w.bin`` beside it."""
    Path(folder).mkdir(parents=True)
    path = Path(folder) / "m.onnx"
    onnx.save(
        plain(), path, save_as_external_data=True, all_tensors_to_one_file=True, location="w.bin", size_threshold=0
    )
    return path


def move(source: Path, target: str) -> Path:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    os.rename(source, target)
    return Path(target).resolve()


def _hub(path: Path) -> Path:
    """As hubs keep them: a folder of links into another that holds the files themselves."""
    model, data = move(path, "blobs/1"), move(path.parent / "w.bin", "blobs/2")
    path.symlink_to(model)
    (path.parent / "w.bin").symlink_to(data)
    return path


def _inside(path: Path) -> Path:
    os.makedirs(path.parent / "deep")
    os.rename(path.parent / "w.bin", path.parent / "deep/w")
    (path.parent / "w.bin").symlink_to("deep/w")
    return path


def _folder_link(path: Path) -> Path:
    os.symlink(path.parent.name, "other")
    return Path("other") / path.name


def _twins(path: Path) -> Path:
    os.link(path.parent / "w.bin", path.parent / "w2.bin")
    return path


@posix
@pytest.mark.parametrize("arrange", [_hub, _inside, _folder_link, _twins])
def test_links_that_stay_in_the_folder_of_the_model_are_followed(arrange: Callable[[Path], Path]) -> None:
    path = arrange(apart("x"))
    loaded = load(path)
    assert loaded.external
    assert {t.name: t.raw_data for t in loaded.proto.graph.initializer} == {
        t.name: t.raw_data for t in plain().graph.initializer
    }


def _outward(path: Path) -> None:
    data = move(path.parent / "w.bin", "secret/w")
    (path.parent / "w.bin").symlink_to(data)


def _outward_folder(path: Path) -> None:
    move(path.parent / "w.bin", "secret/w.bin")
    os.symlink("../secret", path.parent / "sub")
    _renamed(path, "sub/w.bin")


def _hard(path: Path) -> None:
    os.mkdir("secret")
    os.link(path.parent / "w.bin", "secret/w")


def _renamed(path: Path, location: str) -> None:
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        next(entry for entry in tensor.external_data if entry.key == "location").value = location
    path.write_bytes(model.SerializeToString())


def _twice(path: Path) -> None:
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data.add(key="location", value="other.bin")
    path.write_bytes(model.SerializeToString())


def _entry(key: str, value: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        model = onnx.load(path, load_external_data=False)
        entries = model.graph.initializer[0].external_data
        kept = [(e.key, e.value) for e in entries if e.key != key]
        del entries[:]
        for k, v in (*kept, (key, value)):
            entries.add(key=k, value=v)
        path.write_bytes(model.SerializeToString())

    return change


def _pipe(path: Path) -> None:
    (path.parent / "w.bin").unlink()
    os.mkfifo(path.parent / "w.bin")


OUTSIDE = {
    "a link": (_outward, "is a link to .*secret/w, outside"),
    "a folder that is a link": (_outward_folder, "is a link to .*secret/w.bin, outside"),
    "a hard link": (_hard, "hard link to a file outside"),
    "absolute": (lambda path: _renamed(path, "/etc/passwd"), "not inside the model's folder"),
    "upward": (lambda path: _renamed(path, "../secret"), "not inside the model's folder"),
    "of another system": (lambda path: _renamed(path, "C:\\w.bin"), "not inside the model's folder"),
    "a NUL": (lambda path: _renamed(path, "w.bin\0x"), "not inside the model's folder"),
    "itself": (lambda path: _renamed(path, "m.onnx"), "is the model itself"),
    "its folder": (lambda path: _renamed(path, "."), "cannot be read"),
    "two places": (_twice, "twice"),
    "a pipe": (_pipe, "not a regular file"),
    "before its beginning": (_entry("offset", "-4"), "out of range"),
    "petabytes on": (_entry("offset", str(1 << 50)), "out of range"),
    "of petabytes": (_entry("length", str(1 << 50)), "out of range"),
    "of less than nothing": (_entry("length", "-1"), "out of range"),
    "5,000 digits on": (_entry("offset", "9" * 5000), "unreadable offset"),
    "words": (_entry("offset", "__import__('os')"), "unreadable offset"),
}


@posix
@pytest.mark.parametrize("case", OUTSIDE)
def test_external_data_stay_inside(case: str) -> None:
    spoil, said = OUTSIDE[case]
    path = apart("x")
    spoil(path)
    with pytest.raises(ModelError, match=said) as caught:
        load(path)
    assert "\n" not in str(caught.value)


@posix
@pytest.mark.parametrize("swap", ["file", "folder"])
def test_data_that_is_swapped_between_check_and_opening(monkeypatch: pytest.MonkeyPatch, swap: str) -> None:
    """The check sees an innocent file; what is opened is a link outward."""
    path = apart("x")
    os.makedirs(path.parent / "sub")
    os.rename(path.parent / "w.bin", path.parent / "sub/w.bin")
    _renamed(path, "sub/w.bin")
    os.mkdir("secret")
    shutil.copy(path.parent / "sub/w.bin", "secret/w.bin")
    real = os.open

    def swapping(name: object, *rest: object, **named: object) -> int:
        if str(name).endswith("w.bin"):
            if swap == "file":
                os.unlink(path.parent / "sub/w.bin")
                os.symlink("../../secret/w.bin", path.parent / "sub/w.bin")
            else:
                os.rename(path.parent / "sub", path.parent / "gone")
                os.symlink("../secret", path.parent / "sub")
        return real(name, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", swapping)
    with pytest.raises(ModelError, match=r"cannot be read|was replaced while it was read"):
        load(path)


# -- data --------------------------------------------------------------------------------------------------------------


def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


NPY = {
    "void": (_header("|V4", (4, 3, 8, 8)) + bytes(4 * 3 * 64 * 4), "arrays of |V4 cannot be fed"),
    "empty void": (_header("|V0", (4, 3, 8, 8)), "d.npy"),
    "objects": (_header("|O", (4,)) + bytes(64), "it holds Python objects"),
    "more than the file": (_header("<f4", (1 << 40, 3, 8, 8)), "cannot read d.npy"),
    "negative": (_header("<f4", (-4, 3, 8, 8)) + bytes(3072), "cannot read d.npy"),
    "nested": (b"\x93NUMPY\x01\x00" + (9000).to_bytes(2, "little") + b"(" * 9000, "cannot read d.npy"),
    "code": (
        b"\x93NUMPY\x01\x00" + (64).to_bytes(2, "little") + b"__import__('os').system('touch hacked')".ljust(64),
        "cannot read d.npy",
    ),
    "cut": (_header("<f4", (4, 3, 8, 8))[:50], "cannot read d.npy"),
    "complex": (_header("<c8", (4, 3, 8, 8)) + bytes(6144), "arrays of complex64 cannot be fed"),
}


@pytest.mark.parametrize("packing", ["npy", "stored", "packed"])
@pytest.mark.parametrize("case", NPY)
def test_headers_of_arrays_that_lie(case: str, packing: str, capsys: pytest.CaptureFixture[str]) -> None:
    content, said = NPY[case]
    if packing == "npy":
        Path("d.npy").write_bytes(content)
    else:
        said = "d.npz"
        with zipfile.ZipFile("d.npz", "w", zipfile.ZIP_STORED if packing == "stored" else zipfile.ZIP_DEFLATED) as file:
            file.writestr("input.npy", content)
    assert said in refusal(capsys, "net.onnx", "--data", "d.npy" if packing == "npy" else "d.npz", "-q")
    assert not os.path.exists("hacked")


def test_a_picture_of_too_many_pixels_is_not_decoded(capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("1", (12_000, 12_000)).save("huge.png")
    assert "12000×12000 is more than 67,108,864 pixels; scale it down" in refusal(
        capsys, "net.onnx", "--data", "huge.png", "-q"
    )


def test_a_large_jpeg_is_decoded_small() -> None:
    from onnxprune.calibration.images import loaded

    Image.new("L", (8192, 8192), 77).save("large.jpg")
    with Image.open("large.jpg") as image:
        assert loaded(image).size == (2048, 2048)
        assert image.getextrema() == (77, 77)


# -- the cache ---------------------------------------------------------------------------------------------------------


def test_a_cache_of_wrong_content_is_measured_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from onnxprune.latency import cache

    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path / "cache")
    path = cache._path(1)
    path.parent.mkdir()
    sound = {"onnxprune_latency_table": 1, "device": "d", "runtime": "r", "threads": 1, "block": 1, "align": 1}
    sound |= {"unaligned": 1.0, "per_byte": 1e-9, "per_mac": 1e-9, "layers": {"k": [[1, 1, 1e-3]]}}
    path.write_text(json.dumps(sound))
    assert cache._read(path) == sound
    wrong = [sound | {key: value} for key in sound for value in (None, "x", [], {}, float("inf"))]
    wrong += [{key: value for key, value in sound.items() if key != gone} for gone in sound]
    wrong += [sound | {"layers": {"k": points}} for points in (None, [[1]], [[1, 1, "x"]], [[0, 1, 1]], [[1, 1, -1]])]
    text = [json.dumps(one) for one in wrong if one not in (sound | {"device": "x"}, sound | {"runtime": "x"})]
    for spoilt in (*text, "", "[" * 100_000, "1e999", "null", "[]", '"x"'):
        path.write_text(spoilt)
        found = cache._read(path)
        if found:
            cache.table_of(found)
    beyond = [sound | {key: v} for key in ("block", "align") for v in (0, -1, 2**63, 2**70, 1e300, True)]
    beyond += [sound | {key: v} for key in ("unaligned", "per_byte", "per_mac") for v in (-1, 1e300, 2**70, True)]
    beyond += [sound | {"layers": {"k": points}} for points in ([[2**40, 1, 1e-3]], [[1, 1e300, 1e-3]], [[1, 1, 1e300]])]
    for document in beyond:
        path.write_text(json.dumps(document))
        assert cache._read(path) == {}, document
    path.write_text(json.dumps(sound | {"layers": {"k": [[1]]}}))
    assert cache._read(path) == {}


def test_a_cache_that_cannot_be_written_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from onnxprune.latency import cache

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(json, "dump", full)
    cache._write(tmp_path / "c" / "t.json", {"layers": {}})
    assert os.listdir(tmp_path / "c") == []


def test_two_runs_that_write_the_cache_lose_nothing(tmp_path: Path) -> None:
    from onnxprune.latency import cache

    base = {"onnxprune_latency_table": 1, "device": "d", "runtime": "r", "threads": 1, "block": 1, "align": 1}
    base |= {"unaligned": 1.0, "per_byte": 1e-9, "per_mac": 1e-9}
    for key in "ab":
        cache._write(tmp_path / "t.json", base | {"layers": {key: [[1, 1, 1e-3]]}})
    assert set(cache._read(tmp_path / "t.json")["layers"]) == {"a", "b"}


# -- outputs -----------------------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o755])
def test_what_is_replaced_stays_as_private_as_it_was(mode: int) -> None:
    path = apart("x")
    names = ["x/out.onnx", "x/out.onnx.data", "p.json", "r.html"]
    for name in names:
        Path(name).write_text("old")
        os.chmod(name, mode)
    line = [str(path), "-o", names[0], "--plan", names[2], "--report", names[3], *QUICK]
    assert main(line) == 0
    assert [stat.S_IMODE(os.stat(name).st_mode) for name in names] == [mode] * 4
    assert all(Path(name).read_bytes() != b"old" for name in names)


@posix
def test_a_new_file_is_as_the_user_wants_new_files() -> None:
    before = os.umask(0o027)
    try:
        assert main(["net.onnx", *QUICK, "--plan", "p.json"]) == 0
    finally:
        os.umask(before)
    assert [stat.S_IMODE(os.stat(name).st_mode) for name in ("net.pruned.onnx", "p.json")] == [0o640] * 2


def test_data_of_an_attribute_stay_inside_too() -> None:
    """A tensor's external data are looked at wherever the tensor is, a node's attribute included."""
    s = Sketch()
    s.output(s.op("Relu", s.input("x", [1, 4])), [1, 4])
    model = s.model()
    hidden = onnx.TensorProto(name="t", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    hidden.external_data.add(key="location", value="/etc/passwd")
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["c"], value=hidden))
    onnx.save(model, "hidden.onnx")
    with pytest.raises(ModelError, match="not inside the model's folder"):
        load(Path("hidden.onnx"))
