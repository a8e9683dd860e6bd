"""Time a model's layers on this device, for ``onnxprune --latency-table``.

    workstation $ onnxprune inspect net.onnx --layers layers.json
    device      $ python measure_latency_table.py layers.json table.json [--runtime openvino] [--threads 4]
    workstation $ onnxprune net.onnx --latency 0.6 --latency-table table.json

The device needs numpy, onnxruntime or OpenVINO, and two files in one folder: this one and
``onnxprune/latency/device.py``, whose :func:`measure` documents the format of the table.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
from pathlib import Path

# On the device device.py lies beside this file; here it is part of the package, whose own imports are not needed.
sys.path.append(str(Path(__file__).resolve().parents[1] / "onnxprune" / "latency"))

import device

MAKE = "write one with 'onnxprune inspect MODEL.onnx --layers FILE'"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layers", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--runtime", choices=sorted(device.RUNTIMES), default="onnxruntime")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    try:
        # Hours of measuring must not end with a file that cannot be written.
        check_writable(arguments.table)
        document = read(arguments.layers)
        table = measured(document, arguments.runtime, arguments.threads)
        arguments.table.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        print(f"{error.filename or arguments.table}: {error.strerror or error}", file=sys.stderr)
        return 2
    except ImportError as error:
        print(f"{error}: install the runtime, or choose another with --runtime", file=sys.stderr)
        return 2
    except ValueError as error:
        print(f"{arguments.layers}: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.table}: {len(table['layers'])} layers, {table['device']}, {table['runtime']}")
    return 0


def read(path: Path) -> device.Json:
    """A layers file.

    Raises:
        ValueError: where it is none.
        OSError: where it cannot be read.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"not a layers file ({error}); {MAKE}") from None
    if not isinstance(document, dict):
        raise ValueError(f"not a layers file; {MAKE}")
    return document


def measured(document: device.Json, runtime: str, threads: int) -> device.Json:
    """The table; every layer is told on stderr.

    Raises:
        ValueError: where the document is no layers file.
    """
    count = len(document.get("entries", ()))
    done = 0

    def told(what: str) -> None:
        nonlocal done
        done += 1
        print(f"{done}/{count} {what}", file=sys.stderr)

    try:
        return device.measure(document, runtime, threads, told)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a whole layers file ({type(error).__name__}: {error}); {MAKE}") from error


def check_writable(path: Path) -> None:
    """Raise OSError where a file of this name cannot be written; what is there stays as it is."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.is_file():
        path.open("ab").close()
    elif not path.exists():
        path.open("xb").close()
        path.unlink()


if __name__ == "__main__":
    sys.exit(main())
