"""Changes of files that hold no model: bytes, JSON, headers of arrays, pictures."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ODD = [None, True, False, 0, -1, 0.5, 1e300, 2**63, 2**70, "", "0123", "0-99999999999", "\x1b[2J", "\0", [], {}, [[]]]
TEXTS = ["1e999", "NaN", "-Infinity", "9" * 5000, "[" * 5000, '"\\ud800"', '"\u202e"', "{}", "0x1", "", "null"]
SUFFIXES = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")


def change_bytes(draw: np.random.Generator, content: bytes) -> tuple[bytes, str]:
    """Bits, cuts, repeats, runs of one byte."""
    if not content:
        return b"\0", "one byte"
    begin = int(draw.integers(len(content)))
    size = int(min(draw.integers(1, 64), len(content) - begin))
    what = int(draw.integers(5))
    if what == 0:
        spoilt = bytearray(content)
        for place in draw.integers(len(content), size=int(draw.integers(1, 9))):
            spoilt[place] ^= 1 << int(draw.integers(8))
        return bytes(spoilt), "bits turned"
    if what == 1:
        return content[:begin], f"cut at {begin}"
    if what == 2:
        return content[:begin] + content[begin + size :], f"{size} bytes removed at {begin}"
    if what == 3:
        return content[:begin] + content[begin : begin + size] * 3 + content[begin + size :], f"{size} bytes repeated"
    value = int(draw.choice([0, 1, 127, 128, 255]))
    return content[:begin] + bytes([value]) * size + content[begin + size :], f"{size} bytes are {value} at {begin}"


def change_json(draw: np.random.Generator, content: bytes) -> tuple[bytes, str]:
    """A value replaced, removed, repeated or renamed; or text that is no JSON in its place."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return change_bytes(draw, content)
    if draw.random() < 0.15:
        return change_bytes(draw, content)
    places: list[tuple[Any, Any]] = []
    _places(document, places)
    if not places:
        return b"{}", "emptied"
    where, key = places[int(draw.integers(len(places)))]
    what = int(draw.integers(5))
    if what == 0:
        del where[key]
        told = f"{key!r} removed"
    elif what == 1 and isinstance(where, list):
        where.insert(key, where[key])
        told = f"item {key} repeated"
    elif what == 2 and isinstance(where[key], int | float):
        where[key] = where[key] * -1 + int(draw.integers(-2, 3))
        told = f"{key!r} is {where[key]}"
    elif what == 3:
        mark = "\0mark\0"
        where[key] = mark
        text = TEXTS[int(draw.integers(len(TEXTS)))]
        changed = json.dumps(document).replace(json.dumps(mark), text)
        return changed.encode("utf-8", "surrogatepass"), f"{key!r} is {text[:20]}"
    else:
        where[key] = ODD[int(draw.integers(len(ODD)))]
        told = f"{key!r} is {where[key]!r}"
    return json.dumps(document).encode(), told


def _places(document: Any, found: list[tuple[Any, Any]]) -> None:
    keys = list(document) if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ()
    for key in keys:
        found.append((document, key))
        _places(document[key], found)


def npy(which: int, known: Mapping[str, bytes]) -> tuple[bytes, str]:
    array = np.random.default_rng(which).standard_normal((6, 3, 8, 8))
    kind = [np.float32, np.float64, np.float16, np.uint8, np.int64][which % 5]
    file = io.BytesIO()
    np.save(file, (array * 9).astype(kind), allow_pickle=False)
    return file.getvalue(), f"an array of {np.dtype(kind)}"


def npz(which: int, known: Mapping[str, bytes]) -> tuple[bytes, str]:
    """Kept as its one array: the archive is packed when it is changed."""
    content, said = npy(which, known)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if which % 2 else zipfile.ZIP_STORED) as archive:
        archive.writestr("input.npy", content)
        labels = io.BytesIO()
        np.save(labels, np.arange(6) % 3, allow_pickle=False)
        archive.writestr("labels.npy", labels.getvalue())
    return file.getvalue(), f"an archive of {said}"


#: What stands in the header of an array, and what may stand there.
FIELDS = [b"'<f4'", b"'<f8'", b"'|u1'", b"False", b"(6, 3, 8, 8)", b"'shape'", b"'descr'", b"\x93NUMPY", b"\x01\x00"]
INSTEAD = [
    *(b"'|V0'", b"'|V4'", b"'|O'", b"'<M8[s]'", b"'<U3'", b"'<f2'", b"'>f4'", b"[('a','<f4')]", b"True", b"None"),
    *(b"(6,)", b"()", b"(-6, 3, 8, 8)", b"(1099511627776, 3, 8, 8)", b"(6, 3, 0, 8)", b"(6.0, 3, 8, 8)", b"(6, 3)"),
    *(b"__import__('os').system('touch hacked')", b"\x02\x00", b"\x03\x00", b"'a'", b"(" * 40),
]


def change_array(draw: np.random.Generator, content: bytes) -> tuple[bytes, str]:
    """A field of the header of an array, in an archive or not; else bytes."""
    if draw.random() < 0.3:
        return change_bytes(draw, content)
    if content[:2] == b"PK":
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                members = {info.filename: (info.compress_type, archive.read(info)) for info in archive.infolist()}
        except Exception:
            return change_bytes(draw, content)
        name = list(members)[int(draw.integers(len(members)))]
        kind, inner = members[name]
        inner, told = change_array(draw, inner)
        members[name] = kind, inner
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for key, (how, data) in members.items():
                archive.writestr(key, data, how)
        return file.getvalue(), f"{name}: {told}"
    old = FIELDS[int(draw.integers(len(FIELDS)))]
    new = INSTEAD[int(draw.integers(len(INSTEAD)))]
    place = content.find(old)
    if place < 0:
        return change_bytes(draw, content)
    # The header's length stays where there is room, so that what is changed is read at all.
    rest = content[place + len(old) :]
    spare = len(new) - len(old)
    if spare > 0 and rest.find(b" " * spare) >= 0:
        rest = rest.replace(b" " * spare, b"", 1)
    elif spare < 0:
        new += b" " * -spare
    return content[:place] + new + rest, f"{new!r} for {old!r}"


def image(which: int, known: Mapping[str, bytes]) -> tuple[bytes, str]:
    kind = SUFFIXES[which % len(SUFFIXES)]
    mode = "P" if kind == "GIF" else ["RGB", "L"][which // 7 % 2]
    file = io.BytesIO()
    pixels = np.random.default_rng(which).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(file, kind)
    return file.getvalue(), f"a picture, {kind}"


def write_cache(folder: Path, content: bytes, known: Mapping[str, bytes], which: int) -> list[str]:
    """The measured table of this machine, as an earlier run might have left it."""
    from onnxprune.latency import cache

    (folder / "net.onnx").write_bytes(known["wide"])
    (folder / "cache/onnxprune").mkdir(parents=True)
    (folder / "cache/onnxprune" / cache._path(1).name).write_bytes(content)
    return [
        "net.onnx",
        "-o",
        "out.onnx",
        "--latency",
        "0.9",
        "--samples",
        "4",
        "--effort",
        "fast",
        "--threads",
        "1",
        "-q",
    ]
