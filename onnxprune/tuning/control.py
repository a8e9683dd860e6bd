"""If, Loop and Scan.  The caller runs their bodies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from onnxprune.tuning.operators.call import Call, Entry, Outputs, Unsupported

#: (name of the body, its inputs) -> its outputs.
RunBody = Callable[[str, Sequence[Tensor]], list[Tensor]]


def _elsewhere(call: Call) -> Outputs:
    raise Unsupported("a body outside a graph")


#: For the look-up in the table only: :func:`run_control` runs these operators.
CONTROL: Mapping[str, Entry] = {name: Entry(_elsewhere) for name in ("If", "Loop", "Scan")}


def run_control(call: Call, run: RunBody) -> tuple[Tensor, ...]:
    if call.op == "If":
        return tuple(run("then_branch" if bool(call.x) else "else_branch", ()))
    return _loop(call, run) if call.op == "Loop" else _scan(call, run)


def _loop(call: Call, run: RunBody) -> tuple[Tensor, ...]:
    most, condition = call.get(0), call.get(1)
    state = [x for x in call.inputs[2:] if x is not None]
    gathered: list[list[Tensor]] = [[] for _ in range(call.outputs - len(state))]
    limit = float("inf") if most is None else int(most)
    turn, alive = 0, True if condition is None else bool(condition)
    while alive and turn < limit:
        results = run("body", [torch.tensor(turn), torch.tensor(alive), *state])
        alive, state = bool(results[0]), results[1 : 1 + len(state)]
        for kept, value in zip(gathered, results[1 + len(state) :], strict=True):
            kept.append(value)
        turn += 1
    if gathered and not turn:
        raise Unsupported("a loop that never turns")
    return (*state, *(torch.stack(kept) for kept in gathered))


def _scan(call: Call, run: RunBody) -> tuple[Tensor, ...]:
    if call.opset < 9:
        raise Unsupported("Scan of opset 8")
    count = call.integer("num_scan_inputs", 1)
    given = [x for x in call.inputs if x is not None]
    state, scanned = given[: len(given) - count], given[len(given) - count :]
    axes = call.integers("scan_input_axes") or [0] * count
    backward = call.integers("scan_input_directions") or [0] * count
    rows = [
        x.movedim(axis, 0).flip(0) if back else x.movedim(axis, 0)
        for x, axis, back in zip(scanned, axes, backward, strict=True)
    ]
    gathered: list[list[Tensor]] = [[] for _ in range(call.outputs - len(state))]
    for turn in range(len(rows[0])):
        results = run("body", [*state, *(row[turn] for row in rows)])
        state = results[: len(state)]
        for kept, value in zip(gathered, results[len(state) :], strict=True):
            kept.append(value)
    out_axes = call.integers("scan_output_axes") or [0] * len(gathered)
    out_back = call.integers("scan_output_directions") or [0] * len(gathered)
    stacked = [
        torch.stack(kept[::-1] if back else kept, axis)
        for kept, axis, back in zip(gathered, out_axes, out_back, strict=True)
    ]
    return (*state, *stacked)
