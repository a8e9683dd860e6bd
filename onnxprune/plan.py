"""The plan: which units of which group stay.  Plain JSON, so that it can be read, edited and replayed.

``plan.schema.json`` beside this file is its JSON Schema (draft 2020-12).  ``onnxprune_plan`` is the version of the
format: a file of another version is refused; fields that are added later keep it, and readers ignore those they do
not know.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx

from onnxprune.errors import PlanError
from onnxprune.options import RULES

VERSION = 1


@dataclass(frozen=True)
class Cut:
    """``kept``: indices (0 … before-1) of the group's units that stay, ascending, never empty."""

    group: str
    before: int
    kept: tuple[int, ...]


@dataclass(frozen=True)
class TensorCut:
    """What the cut leaves of one stored tensor: ``shape`` before it, ``kept`` positions of each axis that is cut."""

    name: str
    shape: tuple[int, ...]
    kept: Mapping[int, tuple[int, ...]]


@dataclass(frozen=True)
class Rounding:
    """Which channel counts a run preferred.

    ``setting``: what ``--round`` takes to prefer the same on any other machine, "auto:16" or "8"; empty where a latency
    table chose.  ``block``: channels that kernels compute at once, None where the user gave a multiple.  ``because``:
    the features of the processor, the table, or the option that says so.
    """

    setting: str
    block: int | None
    because: str


@dataclass(frozen=True)
class Plan:
    """``model``: fingerprint of the model that the plan belongs to; groups left whole are not listed.

    ``tensors`` follows from ``cuts`` and the model; it is written down for who has the weights but not the graph
    (:func:`onnxprune.torch_plan`), and nothing else reads it.  A plan written by hand has none.  ``rules``: the
    operator rules by which the groups were made, one of :data:`onnxprune.options.RULES`.  ``rounding``: which channel
    counts the run preferred, for the record; None in a plan written by hand.
    """

    model: str
    cuts: tuple[Cut, ...]
    tensors: tuple[TensorCut, ...] = ()
    rules: str = "exact"
    rounding: Rounding | None = None

    def to_json(self) -> str:
        document: dict[str, object] = {
            "onnxprune_plan": VERSION,
            "model": self.model,
            "groups": [{"name": c.group, "before": c.before, "kept": list(c.kept)} for c in self.cuts],
        }
        if self.rules != "exact":
            document["rules"] = self.rules
        if self.rounding is not None:
            document["rounding"] = asdict(self.rounding)
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
        """The plan in a file.

        Raises:
            PlanError: where it cannot be read, or is malformed.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise PlanError(f"cannot read the plan {path}: {error.strerror}; check its path") from error
        except UnicodeDecodeError as error:
            raise PlanError(
                f"{path} is no plan, but some binary file; 'onnxprune prune --plan FILE' writes one"
            ) from error
        try:
            return Plan.from_json(text)
        except PlanError as error:
            raise PlanError(f"{path}: {error}") from error

    @staticmethod
    def from_json(text: str) -> Plan:
        """Parse a plan.

        Raises:
            PlanError: naming what is malformed.
        """
        try:
            document = json.loads(text)
        except json.JSONDecodeError as error:
            raise PlanError(f"not a plan (no JSON: {error}); 'onnxprune prune --plan FILE' writes one") from error
        if not isinstance(document, dict) or document.get("onnxprune_plan") != VERSION:
            raise PlanError(
                f"not a plan of version {VERSION} (no 'onnxprune_plan': {VERSION}); 'onnxprune prune --plan FILE' writes one"
            )
        cuts: list[Cut] = []
        try:
            for entry in document["groups"]:
                cuts.append(Cut(str(entry["name"]), int(entry["before"]), tuple(int(k) for k in entry["kept"])))
            model = str(document["model"])
            tensors = tuple(
                TensorCut(
                    str(entry["name"]),
                    tuple(int(n) for n in entry["shape"]),
                    {int(axis): from_ranges(str(text)) for axis, text in entry["kept"].items()},
                )
                for entry in document.get("tensors", ())
            )
            rounding = None if document.get("rounding") is None else _rounding(document["rounding"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PlanError(f"the plan lacks or misspells a field: {error!r}") from error
        for cut in cuts:
            valid = sorted(set(cut.kept)) == list(cut.kept) and cut.kept and 0 <= cut.kept[0] <= cut.kept[-1]
            if not valid or cut.kept[-1] >= cut.before:
                raise PlanError(
                    f"group '{cut.group}': 'kept' must be ascending indices below {cut.before}, at least one"
                )
        rules = document.get("rules", "exact")
        if rules not in RULES:
            raise PlanError(f"the plan was made by rules called {rules!r}; there are {' and '.join(RULES)}")
        return Plan(model, tuple(cuts), tensors, rules, rounding)


def _rounding(entry: Mapping[str, object]) -> Rounding:
    block = entry["block"]
    if not isinstance(block, int | None):
        raise ValueError(f"rounding: block {block!r}")
    return Rounding(str(entry["setting"]), block, str(entry["because"]))


def to_ranges(kept: Sequence[int]) -> str:
    """Ascending indices, both ends of a run included: ``0-3,5,8-9``."""
    runs: list[list[int]] = []
    for index in kept:
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(f"{a}-{b}" if a < b else f"{a}" for a, b in runs)


def from_ranges(text: str) -> tuple[int, ...]:
    """The reverse of :func:`to_ranges`; raises ValueError for anything else."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.extend(range(int(first), int(last or first) + 1))
    return tuple(found)


def keep_vector(plan: Plan, groups: Mapping[str, np.ndarray], unit_count: int) -> np.ndarray:
    """The plan as one boolean per unit; ``groups`` maps a group's name to its unit ids.

    Raises:
        PlanError: where the plan names a group that is not there, or counts its units otherwise.
    """
    keep = np.ones(unit_count, dtype=np.bool_)
    for cut in plan.cuts:
        units = groups.get(cut.group)
        if units is None:
            raise PlanError(f"the plan cuts group '{cut.group}', which this model does not have")
        if len(units) != cut.before:
            raise PlanError(f"group '{cut.group}' has {len(units)} channels here, the plan was made for {cut.before}")
        keep[units] = False
        keep[units[list(cut.kept)]] = True
    return keep


def fingerprint(model: onnx.ModelProto) -> str:
    """SHA-256 over the graph's structure: nodes, and names and shapes of initializers (not their values).

    Fine-tuned weights therefore keep a plan valid; another architecture does not.
    """
    digest = hashlib.sha256()
    for node in model.graph.node:
        digest.update(repr((node.op_type, node.domain, list(node.input), list(node.output))).encode())
    for tensor in model.graph.initializer:
        digest.update(repr((tensor.name, list(tensor.dims), tensor.data_type)).encode())
    return digest.hexdigest()[:32]
