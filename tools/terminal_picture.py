"""Draw the terminal picture of the README from a real run of its first command.

python tools/terminal_picture.py .github/terminal.svg
"""

from __future__ import annotations

import io
import re
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

import onnxprune
from onnxprune.report.terminal import View, print_report

COMMAND = "onnxprune models/demo.onnx --data models/calib.npz --preprocess unit --macs 0.6 --test models/test.npz"


def main(target: Path) -> int:
    result = onnxprune.prune(
        "models/demo.onnx", "models/calib.npz", macs=0.6, preprocess="unit", test="models/test.npz"
    )
    console = Console(record=True, width=92, file=io.StringIO(), markup=False, highlight=False, force_terminal=True)
    console.print(Text.assemble(("$ ", "green"), COMMAND))
    # Seconds and memory are the machine's; the benchmarks show those.
    print_report(console, replace(result.report, seconds={}, peak_rss_bytes=0), View(most=6, most_locked=2))
    drawn = console.export_svg(title="onnxprune", theme=MONOKAI, unique_id="onnxprune")
    # The file must not load anything from elsewhere, fonts included.
    target.write_text(re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.S), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
