"""Print what is known of every operator: its rule, that it is moved, or why channels stop at it.

    python tools/audit_rules.py [--markdown]

Lists every operator of the installed onnx and, where the installed onnxruntime tells them, of com.microsoft.
Exits 1 where one has no entry.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx.defs

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

Key = tuple[str, str]


@dataclass(frozen=True)
class Line:
    """One operator: since-versions, kind (rule, moved, locked, structural, MISSING), text, an example of it bound."""

    domain: str
    operator: str
    versions: str
    kind: str
    text: str
    example: str


def operators() -> dict[Key, str]:
    """(domain, operator) -> since-versions, of the installed onnx and of onnxruntime's own domain."""
    found: dict[Key, set[int]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        found.setdefault((schema.domain, schema.name), set()).add(schema.since_version)
    try:
        from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema
    except ImportError:
        return {key: _join(versions) for key, versions in found.items()}
    for schema in get_all_operator_schema():
        if schema.domain == "com.microsoft":
            found.setdefault((schema.domain, schema.name), set()).add(schema.since_version)
    return {key: _join(versions) for key, versions in found.items()}


def _join(versions: set[int]) -> str:
    return " ".join(str(v) for v in sorted(versions))


def examples() -> dict[Key, str]:
    """(domain, operator) -> its rule bound at the first case of the project's table and of ONNX's own cases."""
    from law import call_of, execute, feeds_of, one_node, shaped
    from op_cases import CASES
    from test_rules import backend_cases

    from onnxprune.coupling.rule import DoesNotFit, Rule, bind
    from onnxprune.coupling.rules import lookup

    found: dict[Key, str] = {}

    def note(model: onnx.ModelProto, feeds: Mapping[str, object]) -> None:
        node = model.graph.node[0]
        key = (node.domain, node.op_type)
        if key in found:
            return
        try:
            results = execute(shaped(model, feeds), feeds)
            call = call_of(model, feeds, dict(zip((o for o in node.output if o), results, strict=True)))
            entry = lookup(*key)
            rule = entry(call) if callable(entry) else entry
            if isinstance(rule, Rule):
                found[key] = str(bind(rule, call))
        except (RuntimeError, DoesNotFit, NotImplementedError, AttributeError, TypeError, IndexError, ValueError):
            return

    for case in CASES:
        note(
            one_node(case.op, case.inputs, case.attributes, case.domain, case.outputs, case.opset),
            feeds_of(case.inputs),
        )
    for cases in backend_cases().values():
        for _, model, inputs in cases:
            named = zip(model.graph.node[0].input, inputs, strict=True)
            note(model, {name: x for name, x in named if name and x is not None})
    return found


def table(bound: Mapping[Key, str]) -> list[Line]:
    """One line per operator, sorted by domain and name."""
    from onnxprune.coupling.rule import Locked, Mover, Rule, Structural
    from onnxprune.coupling.rules import TABLE

    lines: list[Line] = []
    known = operators()
    for key in sorted({*known, *TABLE}):
        entry, example = TABLE.get(key), bound.get(key, "")
        if entry is None:
            kind, text = "MISSING", "no entry"
        elif isinstance(entry, Rule):
            kind, text = "rule", entry.text
        elif isinstance(entry, Mover):
            kind, text = "moved", "run on coordinates"
        elif isinstance(entry, Locked):
            kind, text = "locked", entry.reason
        elif isinstance(entry, Structural):
            kind, text = "structural", entry.note
        else:
            kind = "moved" if entry.__name__ in ("concat", "gather", "qlinear_concat") else "rule"
            text = (entry.__doc__ or "").strip().split("\n")[0] or "by rank and attributes"
        lines.append(Line(key[0] or "ai.onnx", key[1], known.get(key, "runtime"), kind, text, example))
    return lines


def markdown(lines: list[Line]) -> str:
    """The table as the README carries it."""
    rows = ["| domain | operator | since | kind | rule, as bound in an example, or reason |", "|---|---|---|---|---|"]
    for line in lines:
        told = f"`{line.example}`" if line.example else line.text
        rows.append(f"| {line.domain} | {line.operator} | {line.versions} | {line.kind} | {told.replace('|', '/')} |")
    return "\n".join(rows) + "\n"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--markdown", action="store_true", help="the table for the README")
    options = parser.parse_args(arguments)
    lines = table(examples())
    if options.markdown:
        sys.stdout.write(markdown(lines))
    else:
        for line in lines:
            print(f"{line.domain:24} {line.operator:34} {line.versions:28} {line.kind:10} {line.text}")
            if line.example:
                print(f"{'':24} {'':34} {'':28} {'':10} {line.example}")
    missing = [line.operator for line in lines if line.kind == "MISSING"]
    counts = {kind: sum(line.kind == kind for line in lines) for kind in ("rule", "moved", "locked", "structural")}
    print(", ".join(f"{n} {kind}" for kind, n in counts.items()), f"{len(missing)} missing", sep=", ", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
