"""The house: rooms stand on each other, imports only point down, and no two modules need each other."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "onnxprune"
#: Rooms from the ground up.  A room may import from itself and from those before it.
ROOMS = (
    "errors telemetry guide spelling devices shown surgeon paths json_file memory progress option_kinds options tuning_length target plan result metrics effort",
    "graph",
    "engine",
    "coupling",
    "surgery",
    "linear",
    "calibration measure",
    "selection budget latency tasks",
    "verify",
    "refit tuning",
    "pipeline",
    "cluster",
    "report option_values",
    "workflows",
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


def assigned(node: ast.stmt) -> str:
    """The name that a statement assigns, if it is one name, else ""."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return targets[0].id if len(targets) == 1 and isinstance(targets[0], ast.Name) else ""


def test_no_two_classes_have_the_same_name() -> None:
    """One name, one meaning.  Private classes count too: a reader meets them in the same tracebacks.  So do aliases."""
    places: dict[str, list[str]] = {}
    aliases: dict[str, list[str]] = {}
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(name_of(path))
        for name in filter(None, map(assigned, tree.body)):
            aliases.setdefault(name, []).append(name_of(path))
    assert "Report" in places and "Array" in aliases
    assert {name: modules for name, modules in places.items() if len(modules) > 1} == {}
    assert {name: modules for name, modules in aliases.items() if name in places} == {}


#: Functions of one name in several modules: the parts that every command and every selector has, and the public function
#: with the name of the function that does its work.
PARTS = {"parser", "run", "select", "tune"}


def test_no_two_public_functions_have_the_same_name() -> None:
    places: dict[str, list[str]] = {}
    for path in MODULES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(name_of(path))
    assert {name: modules for name, modules in places.items() if len(modules) > 1 and name not in PARTS} == {}
    assert all(len(places[name]) > 1 for name in PARTS)


def assigns_itself(node: ast.ClassDef) -> bool:
    """Whether a method assigns an attribute of its own object."""
    stored = [a for a in ast.walk(node) if isinstance(a, ast.Attribute) and isinstance(a.ctx, ast.Store)]
    return any(isinstance(a.value, ast.Name) and a.value.id == "self" for a in stored)


def test_a_dataclass_is_frozen_unless_it_assigns_its_own_fields() -> None:
    found: dict[tuple[bool, bool], list[str]] = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                made = [ast.unparse(d) for d in node.decorator_list if ast.unparse(d).startswith("dataclass")]
                if made:
                    frozen = "frozen=True" in made[0]
                    found.setdefault((frozen, assigns_itself(node)), []).append(f"{name_of(path)}.{node.name}")
    assert len(found[True, False]) > 100
    assert set(found) == {(True, False), (False, True)}, found.get((False, False)) or found.get((True, True))


#: Calls that give a new model, or a copy of one.
NEW = frozenset(
    {"ModelProto", "ModelProto.FromString", "make_model", "map_tensors", "copied", "Editor", "deepcopy"}
    | {"inline_local_functions", "infer_shapes", "import_onnx", "export_onnx"}
)
#: Who makes a model, and what for.  Surgery makes the pruned one; the others read, rewrite what reading or coupling
#: cannot follow, or make models to run, which nobody gets to see.
MAKERS = {
    "surgery.cut": {"Editor"},
    "surgery.sweep": {"copied"},
    "surgery.constants": {"Editor"},
    # The editor, and the one copy that all edits work on.
    "graph.edit": {"map_tensors"},
    "graph.tensors": {"map_tensors"},
    # Files and graphs of others become models, and models files.
    "surgeon": {"ModelProto.FromString", "import_onnx", "export_onnx"},
    "graph.file": {"ModelProto.FromString"},
    "graph.external": {"ModelProto.FromString", "map_tensors"},
    # What reading puts right.
    "graph.repair": {"copied", "inline_local_functions"},
    "graph.domain": {"copied"},
    "graph.sequences": {"copied"},
    "graph.inferred": {"copied", "infer_shapes"},
    "graph.opset": {"copied", "infer_shapes"},
    # What coupling writes out first, because channels cannot leave it as it is.
    "graph.shuffle": {"copied"},
    "coupling.unshared": {"copied"},
    # Models and parts of models to run once.
    "graph.load": {"make_model"},
    "engine.loadable": {"copied"},
    "engine.segment": {"make_model"},
    "refit.free": {"make_model"},
    "latency.synthetic": {"make_model"},
    # What becomes a program of another framework.
    "tuning.program": {"inline_local_functions"},
}


def called(path: Path) -> set[str]:
    """Functions and classes that a module calls, by their last names; of FromString, the class before it, too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            parts = ast.unparse(node.func).split(".")
            names.add(".".join(parts[-2:]) if parts[-1] == "FromString" else parts[-1])
    return names


def test_only_surgery_and_what_is_listed_makes_a_model() -> None:
    found = {name_of(path).removeprefix("onnxprune."): called(path) & NEW for path in MODULES}
    assert {name: calls for name, calls in found.items() if calls} == MAKERS


def test_onnx_graphsurgeon_is_met_at_the_border_only() -> None:
    met = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == "onnx_graphsurgeon" for name in names):
                met.add(name_of(path))
    # The result's import is for its annotation only.
    assert met == {"onnxprune.surgeon", "onnxprune.result.pruned"}


@pytest.mark.parametrize("first", ["onnxprune.api", "onnxprune.cli"])
def test_onnx_graphsurgeon_is_loaded_by_its_users_only(first: str) -> None:
    code = f"import {first}, sys; sys.exit('onnx_graphsurgeon' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
