"""Recurrent layers, step by step as ONNX defines them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from onnxprune.tuning.operators.call import Call, Entry, OperatorTable, Unsupported, standard
from onnxprune.tuning.operators.elementwise import ACTIVATIONS

Act = Callable[[Tensor], Tensor]
#: (inputs of a step before activation, hidden state, cell state) -> (hidden state, cell state).
StepFunction = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor | None]]
_DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
#: Parameters of an activation, in the order in which it takes them from activation_alpha and activation_beta.
_TAKES = {
    "LeakyRelu": (0.01,),
    "Elu": (1.0,),
    "ThresholdedRelu": (1.0,),
    "HardSigmoid": (0.2, 0.5),
    "ScaledTanh": (1.0, 1.0),
    "Affine": (1.0, 0.0),
}


def _activations(call: Call, direction: int) -> list[Act]:
    defaults = _DEFAULTS[call.op]
    named = call.attributes.get("activations")
    assert named is None or isinstance(named, Sequence)
    names = [str(n) for n in named] if named else list(defaults) * 2
    alphas, betas = (list(call.attributes.get(f"activation_{k}") or ()) for k in ("alpha", "beta"))  # type: ignore[call-overload]
    activations: list[Act] = []
    for name in names:
        known = next((n for n in (*ACTIVATIONS, *_TAKES) if n.lower() == name.lower()), name)
        takes = _TAKES.get(known, ())
        alpha = (alphas.pop(0) if alphas else takes[0]) if takes else 0.0
        beta = (betas.pop(0) if betas else takes[1]) if len(takes) > 1 else 0.0
        activations.append(_activation(known, float(alpha), float(beta)))
    per = len(defaults)
    return activations[direction * per : (direction + 1) * per]


def _activation(name: str, alpha: float, beta: float) -> Act:
    if name == "Affine":
        return lambda x: alpha * x + beta
    if name == "ScaledTanh":
        return lambda x: alpha * torch.tanh(beta * x)
    if name not in ACTIVATIONS:
        raise Unsupported(f"activation {name}")

    def run(x: Tensor) -> Tensor:
        y = ACTIVATIONS[name].run(Call(name, 21, (x,), {"alpha": alpha, "beta": beta}))
        assert isinstance(y, Tensor)
        return y

    return run


def _lstm(call: Call, d: int, hidden: int) -> StepFunction:
    f, g, h = _activations(call, d)
    recurrence, peephole, clip = call.need(2)[d], call.get(7), call.number("clip", 0.0)
    p = [None] * 3 if peephole is None else list(peephole[d].split(hidden))
    tied = bool(call.integer("input_forget", 0))

    def step(z: Tensor, state: Tensor, cell: Tensor | None) -> tuple[Tensor, Tensor | None]:
        assert cell is not None
        i, o, forget, c = _clipped(z + state @ recurrence.T, 0.0).split(hidden, 1)
        i = f(_clipped(i if p[0] is None else i + p[0] * cell, clip))
        forget = 1 - i if tied else f(_clipped(forget if p[2] is None else forget + p[2] * cell, clip))
        cell = forget * cell + i * g(_clipped(c, clip))
        o = f(_clipped(o if p[1] is None else o + p[1] * cell, clip))
        return o * h(cell), cell

    return step


def _gru(call: Call, d: int, hidden: int) -> StepFunction:
    f, g = _activations(call, d)
    recurrence, biases, clip = call.need(2)[d], call.get(3), call.number("clip", 0.0)
    late = bool(call.integer("linear_before_reset", 0))
    rz, rh = recurrence[: 2 * hidden], recurrence[2 * hidden :]
    bias = None if biases is None else biases[d][5 * hidden :]

    def step(z: Tensor, state: Tensor, cell: Tensor | None) -> tuple[Tensor, Tensor | None]:
        gates, new = z[:, : 2 * hidden] + state @ rz.T, z[:, 2 * hidden :]
        update, reset = f(_clipped(gates, clip)).split(hidden, 1)
        if late:
            back = state @ rh.T
            new = new + reset * (back if bias is None else back + bias)
        else:
            new = new + (reset * state) @ rh.T + (0 if bias is None else bias)
        new = g(_clipped(new, clip))
        return (1 - update) * new + update * state, None

    return step


def _rnn(call: Call, d: int, hidden: int) -> StepFunction:
    (f,) = _activations(call, d)
    recurrence, clip = call.need(2)[d], call.number("clip", 0.0)
    return lambda z, state, cell: (f(_clipped(z + state @ recurrence.T, clip)), None)


def _clipped(x: Tensor, limit: float) -> Tensor:
    return x.clamp(-limit, limit) if limit else x


_STEPS: dict[str, Callable[[Call, int, int], StepFunction]] = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}


def _inputs(call: Call, x: Tensor, d: int, hidden: int) -> Tensor:
    """The share of the inputs and biases in the gates of all steps, by one product."""
    biases = call.get(3)
    z = x @ call.need(1)[d].T
    if biases is None:
        return z
    first, second = biases[d].chunk(2)
    if call.op == "GRU":
        # The recurrent bias of the new state may come after the reset gate.
        second = torch.cat([second[: 2 * hidden], torch.zeros_like(second[2 * hidden :])])
    return z + first + second


def _run(call: Call) -> tuple[Tensor | None, ...]:
    batched = bool(call.integer("layout", 0))
    x = call.x.transpose(0, 1) if batched else call.x
    weight, lengths = call.need(1), call.get(4)
    hidden = call.integer("hidden_size", call.need(2).shape[-1])
    directions, steps, batch = weight.shape[0], x.shape[0], x.shape[1]
    ends = [steps] * batch if lengths is None else [int(v) for v in lengths.tolist()]
    outs, lasts, cells = [], [], []
    for d in range(directions):
        backward = d == 1 or call.text("direction", "forward") == "reverse"
        state, cell = (_start(call, slot, d, batched, x.new_zeros(batch, hidden)) for slot in (5, 6))
        one = _STEPS[call.op](call, d, hidden)
        z = _inputs(call, x, d, hidden)
        states: list[Tensor | None] = [None] * steps
        memory: Tensor | None = cell
        for t in reversed(range(steps)) if backward else range(steps):
            after, kept = one(z[t], state, memory)
            live = torch.tensor([t < end for end in ends], device=x.device).unsqueeze(1)
            whole = min(ends) > t
            states[t] = after if whole else torch.where(live, after, torch.zeros_like(after))
            state = after if whole else torch.where(live, after, state)
            if kept is not None and memory is not None:
                memory = kept if whole else torch.where(live, kept, memory)
        outs.append(torch.stack([y for y in states if y is not None]))
        lasts.append(state)
        cells.append(memory)
    y, last = torch.stack(outs, 1), torch.stack(lasts)
    kept_cells = torch.stack([c for c in cells if c is not None])
    if batched:
        y, last, kept_cells = y.permute(2, 0, 1, 3), last.transpose(0, 1), kept_cells.transpose(0, 1)
    return (y, last, kept_cells) if call.op == "LSTM" else (y, last)


def _start(call: Call, slot: int, d: int, batched: bool, zero: Tensor) -> Tensor:
    given = call.get(slot) if slot == 5 or call.op == "LSTM" else None
    if given is None:
        return zero
    return given[:, d] if batched else given[d]


TABLE: OperatorTable = standard({name: Entry(_run, host=(4,)) for name in _STEPS})
