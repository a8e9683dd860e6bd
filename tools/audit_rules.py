"""Print what is known of every operator: its rule, that it is moved, or why channels stop at it.

    python tools/audit_rules.py [--markdown | --write]

Lists every operator of the installed onnx and, where the installed onnxruntime tells them, of its own domains.
Exits 1 where one has no entry.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import onnx.defs

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

if TYPE_CHECKING:
    from onnxprune.coupling.rule import NodeInfo

Key = tuple[str, str]
MOVED = "run on coordinates, so that what moves where is seen"
BEGIN, END = "<!-- operators: begin -->", "<!-- operators: end -->"


@dataclass(frozen=True)
class Line:
    """One operator: since-versions, kind (rule, moved, locked, structural, MISSING), and its rule or reason."""

    domain: str
    operator: str
    versions: str
    kind: str
    text: str


def operators() -> dict[Key, str]:
    """(domain, operator) -> since-versions, of the installed onnx and of onnxruntime's own domains."""
    found: dict[Key, set[int]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        found.setdefault((schema.domain, schema.name), set()).add(schema.since_version)
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema
    except ImportError:
        return {key: _join(versions) for key, versions in found.items()}
    for schema in get_all_operator_schema():
        if schema.domain in ("com.microsoft", "com.microsoft.nchwc"):
            found.setdefault((schema.domain, schema.name), set()).add(schema.since_version)
    return {key: _join(versions) for key, versions in found.items()}


def _join(versions: set[int]) -> str:
    return " ".join(str(v) for v in sorted(versions))


def examples() -> dict[Key, tuple[str, str]]:
    """(domain, operator) -> its kind and its rule, bound at the first case of the project's own table, else of its
    list of operators that no processor runs, else of ONNX's own cases."""
    from law import execute, feeds_of, info_of, one_node, shaped
    from op_cases import CASES
    from operator_forms import FORMS
    from test_rules import backend_cases, info_of_form

    from onnxprune.coupling.rule import DoesNotFit

    found: dict[Key, tuple[str, str]] = {}

    def note(model: onnx.ModelProto, feeds: Mapping[str, object]) -> None:
        node = model.graph.node[0]
        key = (node.domain, node.op_type)
        if key in found:
            return
        try:
            results = execute(shaped(model, feeds), feeds)
            info = info_of(model, feeds, dict(zip((o for o in node.output if o), results, strict=True)))
            found[key] = _told(info)
        except (RuntimeError, DoesNotFit, NotImplementedError, AttributeError, TypeError, IndexError, ValueError):
            return

    for case in CASES:
        note(
            one_node(case.op, case.inputs, case.attributes, case.domain, case.outputs, case.opset),
            feeds_of(case.inputs),
        )
    for form in FORMS:
        found.setdefault(("com.microsoft", form.op), _told(info_of_form(form)))
    for cases in backend_cases().values():
        for _, model, inputs in cases:
            named = zip(model.graph.node[0].input, inputs, strict=True)
            note(model, {name: x for name, x in named if name and x is not None})
    return found


def _told(info: NodeInfo) -> tuple[str, str]:
    """(kind, rule or reason) of the operator at one node."""
    from onnxprune.coupling.rule import Locked, Rule, bind
    from onnxprune.coupling.rules import lookup

    entry = lookup(info.node.domain, info.node.op)
    rule = entry(info) if callable(entry) else entry
    if not isinstance(rule, Rule):
        return ("locked", rule.reason) if isinstance(rule, Locked) else ("moved", MOVED)
    bound = bind(rule, info)
    stay = [f for f in bound.factors() if f in rule.mix]
    return "rule", f"`{bound}`" + (f", {', '.join(stay)} stay{'s' if len(stay) == 1 else ''}" if stay else "")


def table(bound: Mapping[Key, tuple[str, str]]) -> list[Line]:
    """One line per operator, sorted by domain and name."""
    from onnxprune.coupling.rule import Locked, Mover, Rule, Structural
    from onnxprune.coupling.rules import TABLE

    lines: list[Line] = []
    known = operators()
    for key in sorted({*known, *TABLE}):
        entry = TABLE.get(key)
        if entry is None:
            kind, text = "MISSING", "no entry"
        elif isinstance(entry, Mover):
            kind, text = "moved", MOVED
        elif isinstance(entry, Locked):
            kind, text = "locked", entry.reason
        elif isinstance(entry, Structural):
            kind, text = "structural", entry.note
        elif key in bound:
            kind, text = bound[key]
        elif isinstance(entry, Rule):
            kind, text = "rule", f"`{entry.text}`"
        else:
            kind, text = "rule", (entry.__doc__ or "by rank and attributes").strip().split("\n")[0].rstrip(".")
        lines.append(Line(key[0] or "ai.onnx", key[1], known.get(key, "runtime"), kind, text))
    return lines


def markdown(lines: list[Line]) -> str:
    """The table as the guide carries it: operators of one domain that are told the same share a row."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for line in lines:
        rows.setdefault((line.domain, line.kind, line.text.replace("|", "/")), []).append(line.operator)
    head = ["| domain | operators | kind | rule, bound in an example, or reason |", "|---|---|---|---|"]
    body = [f"| {domain} | {' '.join(names)} | {kind} | {text} |" for (domain, kind, text), names in rows.items()]
    return "\n".join([*head, *body]) + "\n"


def block(lines: list[Line]) -> str:
    """What stands between the guide's markers: the versions that it was made with, and the table, folded up."""
    kinds = Counter(line.kind for line in lines)
    counted = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
    versions = f"onnx {version('onnx')}, onnxruntime {version('onnxruntime')}"
    title = f"<summary>{len(lines)} operators of {versions}: {counted}</summary>"
    return f"<details>\n{title}\n\n{markdown(lines)}\n</details>\n"


def replaced(text: str, lines: list[Line]) -> str:
    """``text`` with a new block between the markers."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{block(lines)}{END}{after}"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--markdown", action="store_true", help="the block for the guide, to standard output")
    parser.add_argument(
        "--write", action="store_true", help="put that block between the markers of onnxprune/guide/operators.md"
    )
    options = parser.parse_args(arguments)
    lines = table(examples())
    if options.write:
        page = ROOT / "onnxprune" / "guide" / "operators.md"
        page.write_text(replaced(page.read_text(), lines))
    elif options.markdown:
        sys.stdout.write(block(lines))
    else:
        for line in lines:
            print(f"{line.domain:24} {line.operator:34} {line.versions:28} {line.kind:10} {line.text}")
    missing = [line.operator for line in lines if line.kind == "MISSING"]
    print(f"{len(lines)} operators, {len(missing)} without an entry", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
