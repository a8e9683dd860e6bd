"""The plan: the units that stay in each group.  Plain JSON, so that users can read, edit and replay it.

``plan.schema.json`` next to this file is its JSON Schema (draft 2020-12).  ``onnxprune_plan`` is the version of the
format; other versions are refused.  New fields do not change the version: readers ignore fields that they do not know.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxprune.errors import PlanError
from onnxprune.json_file import DIGITS, check, parse_json, read_json
from onnxprune.option_kinds import PATH

#: The value of an option of a run: a number, a name, or the values of a repeatable option.
Asked = float | str | tuple[str, ...]
VERSION = 1
#: Maximum positions of an axis of a cut tensor.
MAX_POSITIONS = 1 << 24
_NO_JSON = "not a plan (not JSON: {}); 'onnxprune prune --plan FILE' writes one"


@dataclass(frozen=True)
class Cut:
    """``kept`` lists the indices (0 … before-1) of the group's units that stay, ascending, at least one."""

    group: str
    before: int
    kept: tuple[int, ...]


@dataclass(frozen=True)
class TensorCut:
    """The cut of one stored tensor: its ``shape`` before the cut, and the ``kept`` positions of each cut axis."""

    name: str
    shape: tuple[int, ...]
    kept: Mapping[int, tuple[int, ...]]


@dataclass(frozen=True)
class Rounding:
    """The channel counts that a run preferred.

    ``setting`` is the value of ``--round`` that gives the same preference on any machine, "auto:16" or "8"; empty if a
    latency table decided.  ``block`` is the number of channels that kernels compute at once, None if the user gave a
    multiple.  ``because`` is the reason: features of the processor, the table, or the option.
    """

    setting: str
    block: int | None
    because: str


@dataclass(frozen=True)
class Plan:
    """The cuts of one model.

    ``model`` is the fingerprint of the model.  ``cuts`` does not list groups that stay whole.  ``tensors`` follows from
    ``cuts`` and the model; only :func:`onnxprune.torch_plan` reads it, which has the weights but not the graph.  A plan
    written by hand has no ``tensors``.  ``rules`` names the operator rules that made the groups, one of
    :data:`onnxprune.options.RULES`.  ``rounding`` records the channel counts that the run preferred; None in a plan
    written by hand.  ``asked`` records the budgets, widths by name and targets of the run, with the names that an option
    file uses (``{"macs": 0.5, "keep": ("stem=9",)}``).
    """

    model: str
    cuts: tuple[Cut, ...]
    tensors: tuple[TensorCut, ...] = ()
    rules: str = "exact"
    rounding: Rounding | None = None
    asked: Mapping[str, Asked] = field(default_factory=dict)

    def to_json(self) -> str:
        document: dict[str, object] = {
            "onnxprune_plan": VERSION,
            "model": self.model,
            "groups": [{"name": c.group, "before": c.before, "kept": list(c.kept)} for c in self.cuts],
        }
        if self.rules != "exact":
            document["rules"] = self.rules
        if self.rounding is not None:
            document["rounding"] = {key: value for key, value in asdict(self.rounding).items() if value is not None}
        if self.asked:
            document["asked"] = {k: list(v) if isinstance(v, tuple) else v for k, v in self.asked.items()}
        if self.tensors:
            document["tensors"] = [
                {
                    "name": t.name,
                    "shape": list(t.shape),
                    "kept": {str(axis): to_ranges(kept) for axis, kept in t.kept.items()},
                }
                for t in self.tensors
            ]
        return json.dumps(document, indent=1) + "\n"

    @staticmethod
    def read(path: str | Path) -> Plan:
        """Read a plan from a file.

        Raises:
            PlanError: if it cannot be read or is malformed.
            OptionError: if ``path`` is not a path.
        """
        PATH.check("plan", path)
        try:
            document = read_json(path)
        except OSError as error:
            raise PlanError(f"cannot read the plan {path}: {error.strerror}; check its path") from error
        except UnicodeDecodeError as error:
            raise PlanError(
                f"{path} is not a plan but a binary file; 'onnxprune prune --plan FILE' writes one"
            ) from error
        except ValueError as error:
            raise PlanError(f"{path}: {_NO_JSON.format(error)}") from error
        try:
            return _of(document)
        except PlanError as error:
            raise PlanError(f"{path}: {error}") from error

    @staticmethod
    def from_json(text: str) -> Plan:
        """Parse a plan.

        Raises:
            PlanError: if the plan is malformed or does not follow its schema; names the fault.
        """
        try:
            document = parse_json(text)
        except ValueError as error:
            raise PlanError(_NO_JSON.format(error)) from error
        return _of(document)


def _of(document: Any) -> Plan:
    if not isinstance(document, dict) or document.get("onnxprune_plan") != VERSION:
        raise PlanError(
            f"not a plan of version {VERSION} (no 'onnxprune_plan': {VERSION}); 'onnxprune prune --plan FILE' writes one"
        )
    try:
        check(document, _schema())
    except ValueError as error:
        raise PlanError(
            f"the plan does not follow its schema: {error}; 'onnxprune prune --plan FILE' writes one that does"
        ) from error
    cuts = tuple(
        Cut(entry["name"], int(entry["before"]), tuple(int(k) for k in entry["kept"])) for entry in document["groups"]
    )
    named: set[str] = set()
    for cut in cuts:
        if any(a >= b for a, b in zip(cut.kept, (*cut.kept[1:], cut.before), strict=True)):
            raise PlanError(f"group '{cut.group}': 'kept' must be ascending indices below {cut.before}, at least one")
        if cut.group in named:
            raise PlanError(f"group '{cut.group}' is listed twice; list it once, with all that it keeps")
        named.add(cut.group)
    tensors = tuple(_tensor(entry) for entry in document.get("tensors", ()))
    entry = document.get("rounding")
    rounding = None if entry is None else Rounding(entry["setting"], entry.get("block"), entry["because"])
    asked = {k: tuple(map(str, v)) if isinstance(v, list) else v for k, v in document.get("asked", {}).items()}
    return Plan(document["model"], cuts, tensors, document.get("rules", "exact"), rounding, asked)


def _tensor(entry: Mapping[str, Any]) -> TensorCut:
    shape = tuple(int(n) for n in entry["shape"])
    kept = {}
    for text, ranges in entry["kept"].items():
        axis = int(text) if len(text) < 4 else len(shape)
        if axis >= len(shape):
            raise PlanError(f"tensor '{entry['name']}' has no axis {text}: its shape is {list(shape)}")
        try:
            kept[axis] = from_ranges(ranges, min(shape[axis], MAX_POSITIONS))
        except ValueError as error:
            raise PlanError(f"tensor '{entry['name']}', axis {axis}: {error}") from error
    return TensorCut(entry["name"], shape, kept)


@cache
def _schema() -> Mapping[str, Any]:
    text = files("onnxprune").joinpath("plan.schema.json").read_text(encoding="utf-8")
    schema: Mapping[str, Any] = json.loads(text)
    return schema


def to_ranges(kept: Sequence[int]) -> str:
    """Ascending indices as text, with both ends of each run: ``0-3,5,8-9``."""
    runs: list[list[int]] = []
    for index in kept:
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(f"{a}-{b}" if a < b else f"{a}" for a, b in runs)


def from_ranges(text: str, size: int) -> tuple[int, ...]:
    """The reverse of :func:`to_ranges`, for an axis of ``size`` positions.

    Raises:
        ValueError: if ``text`` is malformed, or if positions do not ascend or lie beyond the axis.
    """
    positions: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if max(len(first), len(last)) > DIGITS:
            raise ValueError(f"a position of {max(len(first), len(last))} digits")
        begin, end = int(first), int(last or first)
        if begin > end or end >= size or (positions and begin <= positions[-1]):
            raise ValueError(f"'{part}' does not ascend within {size} positions")
        positions.extend(range(begin, end + 1))
    return tuple(positions)


def keep_vector(plan: Plan, groups: Mapping[str, np.ndarray], unit_count: int) -> np.ndarray:
    """The plan as one boolean per unit.  ``groups`` maps a group's name to its unit ids.

    Raises:
        PlanError: if the plan names an unknown group, or a group of another size.
    """
    keep = np.ones(unit_count, dtype=np.bool_)
    for cut in plan.cuts:
        units = groups.get(cut.group)
        if units is None:
            raise PlanError(
                f"the plan cuts group '{cut.group}', which this model does not have; 'onnxprune inspect' lists the groups"
            )
        if len(units) != cut.before:
            raise PlanError(
                f"group '{cut.group}' has {len(units)} channels, but the plan was made for {cut.before}; make a new plan "
                "with 'onnxprune prune --plan FILE'"
            )
        keep[units] = False
        keep[units[list(cut.kept)]] = True
    return keep


def fingerprint(model: onnx.ModelProto) -> str:
    """SHA-256 of the graph's structure: nodes, and names, shapes and types of initializers, but not their values.

    So a plan stays valid for fine-tuned weights, but not for another architecture.
    """
    digest = hashlib.sha256()
    for node in model.graph.node:
        digest.update(repr((node.op_type, node.domain, list(node.input), list(node.output))).encode())
    for tensor in model.graph.initializer:
        digest.update(repr((tensor.name, list(tensor.dims), tensor.data_type)).encode())
    return digest.hexdigest()[:32]
