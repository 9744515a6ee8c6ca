"""The rooms: who may import whom, how large a folder, a file and a function may be, which names are not used."""

import ast
from pathlib import Path

import pytest

from ditstack import plugin

ROOT = Path(__file__).parents[1]
HOUSE = ROOT / "stack" / "ditstack"
STACK = sorted(HOUSE.rglob("*.py"))
ADAPTERS = sorted((ROOT / "adapters" / "ditstack_adapters").rglob("*.py"))
SOURCES = [*STACK, *ADAPTERS]
ALL = [*SOURCES, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "benchmarks").rglob("*.py"))]

STOREYS = (
    {"errors"},
    {"files", "compat", "report", "paper"},
    {"marks"},
    {"factors", "folders"},
    {"maths"},
    {"pipeline"},
    {"recipe"},
    {"caching", "attention", "weights"},
    {"assembly"},
    {"calibration"},
    {"stack", "plugin"},
    {"measure"},
    {"tuning"},
    {"batch", "matrix", "testing"},
    {"cli"},
    {"__init__", "__main__"},
)
"""From the ground up: a folder, or a module of the root, imports only what stands on a storey below its own."""

LARGEST_FOLDER = 15
FORBIDDEN = {"utils", "helpers", "common", "base", "core", "manager", "handler", "engine", "interface"}


def imports(path: Path) -> set[str]:
    """The modules of ditstack that a file imports: inside functions too, and for type checkers."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.partition(".")[0].startswith("ditstack")}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ditstack"):
            bare = node.module in ("ditstack", "ditstack_adapters")
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if bare else {node.module}
    return found


def room(module: str) -> str:
    """The folder, or the module of the root, in which a module of ditstack lies."""
    return module.split(".")[1] if "." in module else "__init__"


def storey(name: str) -> int:
    return next(number for number, rooms in enumerate(STOREYS) if name in rooms)


def wrong_arrows(own: str, found: set[str]) -> list[str]:
    """What a module of the room `own` imports from beside or above it."""
    return sorted(one for one in found if room(one) != own and storey(room(one)) >= storey(own))


@pytest.mark.parametrize("path", STACK, ids=lambda path: str(path.relative_to(HOUSE)))
def test_a_module_imports_only_what_stands_below_it(path: Path) -> None:
    found = imports(path)
    assert not any(name.startswith("ditstack_adapters") for name in found), "only adapter.find reaches the adapters"
    assert not wrong_arrows(path.relative_to(HOUSE).parts[0].removesuffix(".py"), found)


def test_every_room_has_its_storey_and_none_is_too_full() -> None:
    rooms = {path.relative_to(HOUSE).parts[0].removesuffix(".py") for path in STACK}
    assert rooms == set().union(*STOREYS)
    for folder in {path.parent for path in STACK}:
        assert len([*folder.glob("*.py")]) <= LARGEST_FOLDER, folder
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text())), f"{folder} says nothing of itself"


def not_for_methods(path: Path) -> set[str]:
    """What a method's file imports of ours beside the declared surface and the mathematics."""
    return {one for one in imports(path) if one != "ditstack.plugin" and one.partition(".maths")[0] != "ditstack"}


@pytest.mark.parametrize("path", ADAPTERS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_method_imports_the_declared_surface_and_the_mathematics_alone(path: Path) -> None:
    assert not not_for_methods(path)


def test_what_a_method_may_import_is_there_and_found_late() -> None:
    named = {one for names in plugin._ROOMS.values() for one in names} | set(plugin._MODULES)
    assert named == set(plugin.__all__)
    assert all(getattr(plugin, name) is not None for name in named)
    with pytest.raises(ImportError, match="cannot import name 'FetureCache'"):
        exec("from ditstack.plugin import FetureCache")


@pytest.mark.parametrize("path", ADAPTERS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_an_adapter_never_speaks_of_another_adapter(path: Path) -> None:
    text = path.read_text()
    assert "ditstack_adapters" not in text.replace(f"ditstack_adapters.{path.parent.name}.{path.stem}", "")


@pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_has_at_most_300_lines_and_a_function_40(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            start = node.body[0].lineno if len(node.body) == 1 else node.lineno
            body = (node.end_lineno or start) - start
            assert body <= 40, f"{node.name} has {body} lines"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_room_has_a_name_that_says_nothing(path: Path) -> None:
    assert path.stem not in FORBIDDEN


def test_the_rule_on_imports_can_fail(tmp_path: Path) -> None:
    upstairs = tmp_path / "clock.py"
    upstairs.write_text("def late():\n    from ditstack.recipe.recipe import Recipe\n")
    assert wrong_arrows("pipeline", imports(upstairs)) == ["ditstack.recipe.recipe"]
    upstairs.write_text("if TYPE_CHECKING:\n    from ditstack import stack\n")
    assert wrong_arrows("pipeline", imports(upstairs)) == ["ditstack.stack"]
    upstairs.write_text("import ditstack.errors\n")
    assert wrong_arrows("pipeline", imports(upstairs)) == []


def test_the_rule_on_what_a_method_imports_can_fail(tmp_path: Path) -> None:
    method = tmp_path / "late.py"
    method.write_text("from ditstack.plugin import Cache\nfrom ditstack.maths import predictors\nimport torch\n")
    assert not_for_methods(method) == set()
    method.write_text("def apply():\n    from ditstack.pipeline.policy import StepPolicy\n")
    assert not_for_methods(method) == {"ditstack.pipeline.policy"}
    method.write_text("from ditstack_adapters.cache import icc\n")
    assert not_for_methods(method) == {"ditstack_adapters.cache"}
