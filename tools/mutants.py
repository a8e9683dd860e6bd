"""Change onnxprune's code in one place at a time, and see whether its tests notice.

    pip install cosmic-ray
    python tools/mutants.py                              30 mutants of each package, an hour or so
    python tools/mutants.py --package refit --count 10   fewer
    python tools/mutants.py --package refit --only 7     one mutant again

Mutants are drawn by --seed from all that cosmic-ray knows to make: places first, then one change for each, so that an
addition with its eleven replacements counts once.  Annotations are left out.  The work happens in a copy
of the tree.  The exit code is 1 if a mutant survived.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from cosmic_ray.commands import init
from cosmic_ray.modules import find_modules
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome

ROOT = Path(__file__).resolve().parents[1]
#: The tests that cover each package, the quick ones first.  The longest name that begins a module's path counts.
TESTS = {
    "coupling": "why control_flow coupling coarse shuffle structure products architectures",
    "coupling/rules": "refusals linear rules products quantized",
    "surgery": "oddities plan coupling shuffle edit structure",
    "refit": "window hidden linear refit sharpened kept_targets structure",
}
PACKAGES = sorted(name for name in TESTS if "/" not in name)
#: Seconds for a run of the tests without a change, and how much longer one with a mutant may take.  A mutant can make them
#: hang.
PATIENCE, LONGER = 600.0, 3.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", choices=PACKAGES, action="append")
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, action="append", help="numbers of mutants, of those that were drawn")
    parser.add_argument("--green", action="store_true", help="the tests are known to pass without a change")
    parser.add_argument("--python", default=sys.executable, help="of an environment that runs the tests")
    arguments = parser.parse_args()
    survived = 0
    with tempfile.TemporaryDirectory(prefix="onnxprune-mutants-") as folder:
        copy = Path(folder) / "tree"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", "__pycache__", ".*cache", ".hypothesis"))
        os.chdir(copy)
        os.environ |= {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        for package in arguments.package or PACKAGES:
            patience = dict.fromkeys(TESTS, PATIENCE)
            if not arguments.green:
                for name in TESTS:
                    if name.startswith(package):
                        start = time.monotonic()
                        subprocess.run(command(arguments.python, name), check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE)
                        patience[name] = LONGER * (time.monotonic() - start)
            known = list(places(Path("onnxprune") / package))
            drawn = draw(known, arguments.count, random.Random(f"{arguments.seed} {package}"))
            killed = 0
            for number in range(len(drawn)) if arguments.only is None else arguments.only:
                start = time.monotonic()
                covering = max((n for n in TESTS if f"/{n}/" in drawn[number].module_path.as_posix()), key=len)
                result = mutate_and_test([drawn[number]], shlex.join(command(arguments.python, covering)), patience[covering])
                alive = result.test_outcome == TestOutcome.SURVIVED
                killed += not alive
                where = f"{drawn[number].module_path}:{drawn[number].start_pos[0]} {drawn[number].operator_name}"
                said = "SURVIVED" if alive else f"killed ({reason(result.output or '')})"
                print(f"{package} {number} {where}: {said}, {time.monotonic() - start:.0f} s", flush=True)
                if alive:
                    survived += 1
                    print(*(line for line in (result.diff or "").splitlines() if line[:1] in "+-"), sep="\n", flush=True)
            tried = len(drawn) if arguments.only is None else len(arguments.only)
            print(f"{package}: {len(known)} places, {tried} mutants, {killed} killed ({killed / tried:.0%})", flush=True)
    return 1 if survived else 0


def command(python: str, covering: str) -> list[str]:
    """Run the tests that cover a package."""
    files = [f"tests/test_{name}.py" for name in TESTS[covering].split()]
    return [python, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files]


def places(package: Path) -> Iterator[list[MutationSpec]]:
    """The changes that can be made, by place."""
    with tempfile.TemporaryDirectory() as folder, use_db(f"{folder}/mutants.sqlite", WorkDB.Mode.create) as known:
        init(sorted(find_modules([package])), known, {})
        found: dict[tuple[str, tuple[int, int], tuple[int, int]], list[MutationSpec]] = {}
        for item in known.work_items:
            for change in item.mutations:
                found.setdefault((str(change.module_path), change.start_pos, change.end_pos), []).append(change)
    silent = {path: set(_annotations(path)) for path in {path for path, _, _ in found}}
    for (path, start, end), changes in sorted(found.items()):
        if not any(first <= start and end <= last for first, last in silent[path]):
            yield sorted(changes, key=lambda change: (change.operator_name, change.occurrence))


def draw(known: Sequence[list[MutationSpec]], count: int, generator: random.Random) -> list[MutationSpec]:
    """One change at each of ``count`` places."""
    chosen = generator.sample(known, min(count, len(known)))
    return [generator.choice(changes) for changes in chosen]


def _annotations(path: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Where types are written, that nothing reads while the program runs."""
    for node in ast.walk(ast.parse(Path(path).read_text(encoding="utf-8"))):
        for name in ("annotation", "returns"):
            written = getattr(node, name, None)
            if written is not None:
                yield (written.lineno, written.col_offset), (written.end_lineno, written.end_col_offset)


def reason(output: str) -> str:
    """The test that failed first."""
    failed = [line for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return failed[0].split(" ")[1].partition("::")[2][:60] if failed else output.strip()[-60:].replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main())
