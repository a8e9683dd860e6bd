"""Cells of ``bench_accuracy.py`` on disk, and the tables made of them."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

#: Rows of onnxprune itself: they are not among those that it is compared with.
OWN_PREFIX = "onnxprune"


@dataclass(frozen=True)
class Cell:
    """One result; ``macs`` and ``top1`` are shares, NaN where ``note`` says why there is none."""

    model: str
    method: str
    kept: float
    samples: int
    seed: int
    macs: float
    top1: float
    note: str
    seconds: float

    def as_json(self) -> dict[str, object]:
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}

    @staticmethod
    def from_json(found: dict[str, object]) -> Cell:
        numbers = {k: math.nan for k in ("macs", "top1") if found[k] is None}
        return Cell(**{**found, **numbers})  # type: ignore[arg-type]


def write_cell(out: Path, cell: Cell) -> None:
    folder = out / "cells" / cell.model / cell.method
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{cell.kept:g}-{cell.samples}-{cell.seed}.json"
    path.write_text(json.dumps(cell.as_json(), indent=1) + "\n")


def read_cells(out: Path, samples: int, seed: int) -> list[Cell]:
    """All cells of one setting, in a fixed order."""
    files = sorted((out / "cells").glob(f"*/*/*-{samples}-{seed}.json"))
    return [Cell.from_json(json.loads(path.read_text())) for path in files]


def tables(cells: Sequence[Cell], methods: Sequence[str], default: str) -> str:
    """Markdown: per model a table (methods by kept MACs), the cells where another method leads, and what is missing."""
    lines: list[str] = []
    for model in dict.fromkeys(c.model for c in cells):
        own = [c for c in cells if c.model == model]
        original = next((c.top1 for c in own if c.method == "original"), math.nan)
        kept = sorted({c.kept for c in own if c.method != "original"}, reverse=True)
        found = {(c.method, c.kept): c for c in own}
        lines += [f"## {model} (original {original:.2%}, {own[0].samples} images)", ""]
        lines.append("| method | " + " | ".join(f"{k:g}" for k in kept) + " |")
        lines.append("|---|" + "---:|" * len(kept))
        for method in methods:
            row = [found.get((method, k)) for k in kept]
            if any(row):
                leads = [_leads(c, found.get((default, k)), default) for c, k in zip(row, kept, strict=True)]
                texts = [_text(c, lead) for c, lead in zip(row, leads, strict=True)]
                lines.append(f"| {method} | " + " | ".join(texts) + " |")
        lines += ["", *_ahead(found, methods, kept, default), *_missing(found, methods), ""]
    return "\n".join(lines)


def _leads(cell: Cell | None, default: Cell | None, name: str) -> bool:
    return (
        cell is not None and default is not None and not cell.method.startswith(OWN_PREFIX) and cell.top1 > default.top1
    )


def _text(cell: Cell | None, lead: bool) -> str:
    if cell is None:
        return ""
    if math.isnan(cell.top1):
        return "-"
    return f"**{cell.top1:.2%}**" if lead else f"{cell.top1:.2%}"


def _ahead(found: dict[tuple[str, float], Cell], methods: Sequence[str], kept: Sequence[float], name: str) -> list[str]:
    lines = []
    for k in kept:
        default = found.get((name, k))
        for method in methods:
            cell = found.get((method, k))
            if _leads(cell, default, name):
                assert cell is not None and default is not None
                lines.append(f"- at {k:g}, {method} leads {name} by {100 * (cell.top1 - default.top1):.2f} points")
    if lines or not any(m == name for m, _ in found):
        return lines
    return [f"- no other method leads {name} in any cell"]


def _missing(found: dict[tuple[str, float], Cell], methods: Sequence[str]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for (method, k), cell in found.items():
        if math.isnan(cell.top1):
            reasons.setdefault(f"{method}: {cell.note}", []).append(f"{k:g}")
    return [f"- none at {', '.join(where)} of {reason}" for reason, where in reasons.items()]


def plots(out: Path, python: str) -> str:
    """Plot accuracy against MACs, one picture per model; what came of it, in a line."""
    script = Path(__file__).with_name("bench_plot.py")
    done = subprocess.run([python, str(script), str(out)], capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip().splitlines()[-1] if done.stdout or done.stderr else "no plots"
