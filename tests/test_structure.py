"""The house: rooms stand on each other, imports only point down, and no two modules need each other."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "onnxprune"
#: Rooms from the ground up.  A room may import from itself and from those before it.
ROOMS = (
    "errors guide shown paths progress options target plan result metrics effort",
    "graph",
    "engine",
    "coupling",
    "surgery",
    "linear",
    "calibration",
    "selection budget latency tasks",
    "verify",
    "refit tune",
    "pipeline",
    "report",
    "api",
    "cli __main__ __init__",
)
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms.split()}
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path) for path in MODULES}


def imports(path: Path) -> set[str]:
    """Modules of this package that one imports, also within functions, but not for annotations only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE.name:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in NAMES else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in NAMES}
    return found - {name_of(path)}


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def test_every_room_has_a_floor() -> None:
    assert {room_of(name) for name in NAMES} == set(FLOOR)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_import_points_up(path: Path) -> None:
    own = FLOOR[room_of(name_of(path))]
    up = {module for module in imports(path) if FLOOR[room_of(module)] > own}
    assert not up


def test_no_circles() -> None:
    graph = {name_of(path): imports(path) for path in MODULES}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"modules that need each other: {' -> '.join(error.args[1])}")
