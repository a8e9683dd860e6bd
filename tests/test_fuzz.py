"""Inputs that are nearly right: each is verified, or refused in one line.  ``python tools/fuzz`` runs more of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from hostile import plain

from onnxprune import prune
from onnxprune.plan import from_ranges

FUZZ = Path(__file__).parents[1] / "tools" / "fuzz"
#: Inputs of each kind; what was found with more stands as a test of its own in ``test_hostile.py``.
COUNT = int(os.environ.get("ONNXPRUNE_FUZZ", "3"))

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a process of its own, bounded by the system, for each")


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(FUZZ), *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=550, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_inputs_that_are_nearly_right(tmp_path: Path) -> None:
    done = fuzz("--count", str(COUNT), "--keep", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if not line.startswith("input")]
    assert [int(row[1]) for row in rows] == [COUNT] * len(rows) and len(rows) == 8
    assert sum(int(row[2]) for row in rows) > 0 < sum(int(row[3]) for row in rows)


def test_the_oracle_sees_a_wrong_cut(tmp_path: Path) -> None:
    """Of a plan that keeps other channels than the model does, it says so; of the right one it says nothing."""
    sys.path.append(str(FUZZ))
    try:
        from oracle import differs
    finally:
        sys.path.remove(str(FUZZ))
    model, small, plan = tmp_path / "a.onnx", tmp_path / "b.onnx", tmp_path / "p.json"
    onnx.save(plain(), model)
    result = prune(model, macs=0.7, samples=4, effort="fast", refit="none", threads=1)
    onnx.save(result.model, small)
    plan.write_text(result.plan.to_json())
    assert differs(model, small, plan) == ""
    document = json.loads(plan.read_text())
    assert document["tensors"]
    for tensor in document["tensors"]:
        for axis, kept in tensor["kept"].items():
            size, count = tensor["shape"][int(axis)], len(from_ranges(kept, tensor["shape"][int(axis)]))
            tensor["kept"][axis] = f"{size - count}-{size - 1}"
    assert document != json.loads(plan.read_text())
    (tmp_path / "other.json").write_text(json.dumps(document))
    assert "differs by" in differs(model, small, tmp_path / "other.json")
    other = result.model
    other.graph.initializer[0].CopyFrom(
        onnx.numpy_helper.from_array(
            onnx.numpy_helper.to_array(other.graph.initializer[0]) * 2, other.graph.initializer[0].name
        )
    )
    onnx.save(other, small)
    assert "differs by" in differs(model, small, plan)
