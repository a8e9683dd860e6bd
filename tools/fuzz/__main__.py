"""Feed onnxprune with inputs that are nearly right, and say what it did with each.

    python tools/fuzz                          a minute, all kinds of input
    python tools/fuzz --seconds 3600           an hour
    python tools/fuzz --kind model --case 17   one input again, shrunk, with what was said about it

Every input is verified, or refused in one line; anything else is a finding, whose files stay in --keep, and the exit
code is 1.  The same --seed gives the same inputs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from inputs import KINDS, Case, bases
from run import Outcome, run, shrunk


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=sorted(KINDS), action="append")
    parser.add_argument("--count", type=int, help="inputs of each kind, instead of seconds")
    parser.add_argument("--case", type=int)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "onnxprune-fuzz")
    arguments = parser.parse_args()
    known = bases()
    kinds = arguments.kind or sorted(KINDS)
    if arguments.case is not None:
        return again(Case(kinds[0], arguments.seed, arguments.case, known), arguments.keep)
    found: dict[str, dict[str, int]] = {kind: {} for kind in kinds}
    bad = 0
    end, number = time.monotonic() + arguments.seconds, 0
    while number < arguments.count if arguments.count is not None else time.monotonic() < end:
        for kind in kinds:
            outcome = run(Case(kind, arguments.seed, number, known), arguments.keep)
            found[kind][outcome.what] = found[kind].get(outcome.what, 0) + 1
            if outcome.bad:
                bad += 1
                print(f"--kind {kind} --seed {arguments.seed} --case {number}: {outcome.told}", flush=True)
        number += 1
    print(f"{'input':<10}{'tried':>8}{'verified':>10}{'refused in one line':>21}{'anything else':>15}")
    for kind, counts in found.items():
        tried, fine, refused = sum(counts.values()), counts.get("verified", 0), counts.get("refused", 0)
        print(f"{kind:<10}{tried:>8}{fine:>10}{refused:>21}{tried - fine - refused:>15}")
    return 1 if bad else 0


def again(case: Case, keep: Path) -> int:
    outcome: Outcome = run(case, keep)
    if outcome.bad:
        case, outcome = shrunk(case, outcome, keep)
    print("\n".join(case.told()))
    print(f"{outcome.what}: {outcome.told}")
    return 1 if outcome.bad else 0


if __name__ == "__main__":
    sys.exit(main())
