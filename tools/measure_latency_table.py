"""Time a model's layers on this device, for ``onnxprune --latency-table``.

    workstation $ onnxprune inspect net.onnx --layers layers.json
    device      $ python measure_latency_table.py layers.json table.json [--runtime openvino] [--threads 4]
    workstation $ onnxprune net.onnx --latency 0.6 --latency-table table.json

The device needs numpy, onnxruntime or OpenVINO, and two files in one folder: this one and
``onnxprune/latency/device.py``, whose :func:`measure` documents the format of the table.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

# On the device device.py lies beside this file; here it is part of the package, whose own imports are not needed.
sys.path.append(str(Path(__file__).resolve().parents[1] / "onnxprune" / "latency"))

import device


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layers", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--runtime", choices=sorted(device.RUNTIMES), default="onnxruntime")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    document = json.loads(arguments.layers.read_text(encoding="utf-8"))
    count = len(document.get("entries", ()))
    done = 0

    def told(what: str) -> None:
        nonlocal done
        done += 1
        print(f"{done}/{count} {what}", file=sys.stderr)

    try:
        table = device.measure(document, arguments.runtime, arguments.threads, told)
    except ValueError as error:
        print(f"{arguments.layers}: {error}", file=sys.stderr)
        return 2
    arguments.table.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    print(f"{arguments.table}: {len(table['layers'])} layers, {table['device']}, {table['runtime']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
