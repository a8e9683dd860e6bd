"""Prune every ONNX file of some folders and print what became of each: the proof that nothing breaks.

    python tools/export_zoo.py --out /tmp/zoo && python tools/export_zoo.py --out /tmp/zoo --variants fp16,external,dynamic
    python tools/bench_zoo.py /tmp/zoo/ts /tmp/zoo/dynamo /tmp/zoo/variants "$ONNXPRUNE_ASSETS/zoo"
    python tools/bench_zoo.py /tmp/zoo/ts --peer-python /path/to/python    # with onnxsim and torch-pruning beside it

Every model is pruned in a process of its own, on synthetic data, so that a crash or a hang is a row.  The table and
the summary go to stdout, one JSON line per model to the file of ``--json``; what that file knows already is not run
again.  Exits 1 where a model is not OK: it
crashed, its result is not valid, or it stayed whole without a lock that the report names.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

TOOLS = Path(__file__).resolve().parent
#: Where the budget is out of reach, it is this much above the least that the message tells.
ROOM = 1.02


@dataclass(frozen=True)
class Row:
    """One model.  ``status``: "ok", "locked" (whole, and ``note`` names the locks), or what went wrong.

    ``prunable``: share of the MACs in nodes with a side that can be cut; ``masked``: masked equivalence, relative;
    ``peers``: peer -> its own status and share of parameters kept.
    """

    model: str
    exporter: str
    status: str
    nodes: int = 0
    prunable: float = 0.0
    kept: float = 1.0
    masked: float = 0.0
    seconds: float = 0.0
    megabytes: float = 0.0
    note: str = ""
    peers: dict[str, str] = field(default_factory=dict)


# ------------------------------------------------------------------------------------- one model


def prune_one(path: Path, options: argparse.Namespace) -> Row:
    """Inspect and prune in this process; errors that the package raises on purpose become the row's status."""
    import onnx

    from onnxprune import api
    from onnxprune.errors import BudgetError, OnnxPruneError

    proto = onnx.load(path, load_external_data=False)
    exporter = f"{proto.producer_name} {proto.producer_version}".strip() or "unknown"
    model = f"{path.parent.name}/{path.stem}"
    start = time.perf_counter()
    try:
        found = api.inspect(path)
    except OnnxPruneError as error:
        return Row(model, exporter, f"inspect: {error}", len(proto.graph.node))
    locks = dict.fromkeys(g.locked for g in sorted(found.groups, key=lambda g: -g.macs_share) if g.locked)
    note = "; ".join(list(locks)[: options.locks])
    share = found.prunable_macs_share
    budget, status = options.macs, "ok"
    for _ in range(2):
        try:
            result = api.prune(
                path,
                macs=budget,
                samples=options.samples,
                select=options.select,
                refit=options.refit,
                effort=options.effort,
                threads=options.threads,
            )
        except BudgetError as error:
            status = str(error)
            least = _least(status)
            if least is None:
                locked = "locked" if note else "unchanged without a lock"
                return Row(model, exporter, locked, found.nodes, share, seconds=time.perf_counter() - start, note=note)
            budget, note = min(1.0, least * ROOM), f"{status}; {note}"
            continue
        except OnnxPruneError as error:
            return Row(model, exporter, f"{type(error).__name__}: {error}", found.nodes, share)
        report = result.report
        status = "ok" if report.verify.passed else "; ".join(report.verify.complaints)
        if report.macs.ratio == 1.0:
            status = "locked" if note else "unchanged without a lock"
        return Row(
            model,
            exporter,
            status,
            found.nodes,
            share,
            report.macs.ratio,
            report.verify.masked_max_rel_err,
            time.perf_counter() - start,
            report.peak_rss_bytes / 1e6,
            note,
        )
    return Row(model, exporter, status, found.nodes, share, seconds=time.perf_counter() - start, note=note)


def _least(message: str) -> float | None:
    """The smallest share of MACs that a refusal of the budget tells."""
    words = message.replace(",", " ").replace(";", " ").replace(":", " ").split()
    shares = [float(w) for w in words if w.replace(".", "", 1).isdigit() and 0.0 < float(w) <= 1.0]
    return shares[-1] if shares else None


# ----------------------------------------------------------------------------------- all of them


def process(command: list[str], timeout: float) -> tuple[dict[str, Any] | None, str]:
    """(the JSON that the command printed, "") or (None, how it failed)."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return None, f"no answer after {timeout:.0f} s"
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return None, f"exit code {done.returncode}: {last[:200]}"
    return json.loads(done.stdout.strip().splitlines()[-1]), ""


def peers_of(path: Path, python: str, timeout: float, known: Mapping[str, Row]) -> dict[str, str]:
    """What each peer says of the model; torch-pruning only where the file is one of export_zoo.py's."""
    asked = {"onnxsim": str(path)}
    if path.parent.name in ("ts", "dynamo"):
        asked["torch-pruning"] = path.stem
    found = {}
    for peer, what in asked.items():
        # It prunes the torch model, whatever exporter the file came from.
        twins = [known.get(f"{folder}/{what}") for folder in ("ts", "dynamo")]
        same = next((row.peers[peer] for row in twins if row is not None and peer in row.peers), None)
        if same is not None:
            found[peer] = same
            continue
        answer, failure = process([python, str(TOOLS / "zoo_peers.py"), peer, what], timeout)
        if answer is None:
            found[peer] = f"crashed ({failure})"
        else:
            why = f" ({answer['why']})" if "why" in answer else ""
            kept = "" if answer["status"] == "unchanged" else f" {answer['params_kept']:.2f}"
            found[peer] = f"{answer['status']}{kept}{why}"
    return found


def one(path: Path, options: argparse.Namespace, known: Mapping[str, Row]) -> Row:
    """The row of one file; what ``known`` has of it is taken from there."""
    name = f"{path.parent.name}/{path.stem}"
    row = known.get(name) or _pruned(path, name, options)
    if options.peer_python is None or row.peers:
        return row
    return replace(row, peers=peers_of(path, options.peer_python, options.timeout, known))


def _pruned(path: Path, name: str, options: argparse.Namespace) -> Row:
    command = [sys.executable, str(Path(__file__).resolve()), "--worker", str(path), "--macs", str(options.macs)]
    command += ["--samples", str(options.samples), "--select", options.select, "--refit", options.refit]
    command += ["--threads", str(options.threads), "--effort", options.effort]
    start = time.perf_counter()
    answer, failure = process(command, options.timeout)
    if answer is None:
        return Row(name, "?", f"crashed: {failure}", seconds=time.perf_counter() - start)
    return Row(**answer)


def read(path: Path | None) -> dict[str, Row]:
    """Rows of an earlier run, by model; the last one counts."""
    if path is None or not path.exists():
        return {}
    rows = (Row(**json.loads(text)) for text in path.read_text().splitlines())
    return {row.model: row for row in rows}


HEADER = f"{'model':44} {'nodes':>5} {'prunable':>8} {'kept':>6} {'masked':>8} {'s':>6} {'MB':>6}  status"


def line(row: Row) -> str:
    peers = "".join(f" | {peer}: {found.split(' (')[0]}" for peer, found in row.peers.items())
    note = "" if row.status == "ok" else f" [{row.note[:120]}]"
    return (
        f"{row.model[:44]:44} {row.nodes:5d} {row.prunable:8.1%} {row.kept:6.1%} {row.masked:8.1e} "
        f"{row.seconds:6.1f} {row.megabytes:6.0f}  {row.status[:160]}{note}{peers}"
    )


def summary(rows: list[Row]) -> str:
    good = [r for r in rows if r.status in ("ok", "locked")]
    cut = [r for r in rows if r.status == "ok"]
    worst = max((r.masked for r in cut), default=0.0)
    lines = [
        f"{len(rows)} models: {len(cut)} pruned and verified, {len(good) - len(cut)} whole with a named lock, "
        f"{len(rows) - len(good)} not OK; worst masked equivalence {worst:.1e}"
    ]
    for peer in dict.fromkeys(p for r in rows for p in r.peers):
        counts: dict[str, int] = {}
        for row in rows:
            if peer in row.peers:
                word = row.peers[peer].split()[0]
                counts[word] = counts.get(word, 0) + 1
        lines.append(f"{peer}: " + ", ".join(f"{n} {word}" for word, n in sorted(counts.items())))
    return "\n".join(lines)


def files(folders: list[Path], glob: str) -> list[Path]:
    found = [p for f in folders for p in (sorted(f.glob("*.onnx")) if f.is_dir() else [f])]
    return [p for p in found if any(fnmatch.fnmatch(f"{p.parent.name}/{p.stem}", g) for g in glob.split(","))]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, help="folders of .onnx files, or files")
    parser.add_argument("--macs", type=float, default=0.6)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--select", default="qr")
    parser.add_argument("--refit", default="lstsq", help="'none' is faster, and proves the same of the cut")
    parser.add_argument("--effort", default="default", help="'fast' refits every layer once and searches nothing")
    parser.add_argument("--threads", type=int, default=1, help="of onnxruntime; set OMP_NUM_THREADS, too")
    parser.add_argument("--only", default="*", metavar="GLOB", help="globs over FOLDER/NAME, by commas")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds per model and tool")
    parser.add_argument("--peer-python", help="a python with torch, timm, onnxsim and torch-pruning")
    parser.add_argument("--json", type=Path, metavar="FILE", help="one JSON line per model")
    parser.add_argument("--locks", type=int, default=3, help="how many locks a row names")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.worker is not None:
        print(json.dumps(asdict(prune_one(options.worker, options))))
        return 0
    print(HEADER, flush=True)
    known = read(options.json)
    rows: list[Row] = []
    for path in files(options.paths, options.only):
        row = one(path, options, known)
        rows.append(row)
        print(line(row), flush=True)
        if options.json is not None and known.get(row.model) != row:
            known[row.model] = row
            with options.json.open("a") as out:
                out.write(json.dumps(asdict(row)) + "\n")
    print(summary(rows))
    return 0 if rows and all(r.status in ("ok", "locked") for r in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
