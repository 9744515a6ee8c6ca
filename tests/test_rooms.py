"""The rooms: who may import whom, how large a file and a function may be, which names are not used."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOUSE = ROOT / "stack" / "ditstack"
STACK = sorted(HOUSE.rglob("*.py"))
ADAPTERS = sorted((ROOT / "adapters" / "ditstack_adapters").rglob("*.py"))
SOURCES = [*STACK, *ADAPTERS]
ALL = [*SOURCES, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "benchmarks").rglob("*.py"))]

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "facts": set(),
    "lowrank": set(),
    "predictors": set(),
    "schedule": set(),
    "macs": set(),
    "quiet": set(),
    "hooks": set(),
    "clock": {"hooks"},
    "adapter": {"facts", "errors"},
    "layers": {"adapter", "errors"},
    "model": {"adapter", "blocks", "facts", "errors", "pipe"},
    "recipe": {"adapter", "errors", "layers", "model"},
    "plan": {"adapter", "recipe", "facts", "errors"},
    "files": {"errors"},
    "factors": {"errors", "files"},
    "blocks": {"errors"},
    "cadence": {"clock"},
    "pipe": {"blocks", "clock", "errors", "macs"},
    "trunk": {"hooks", "blocks", "errors", "pipe", "predictors"},
    "weights": set(),
    "blocksparse": set(),
    "closed": set(),
    "layout": {"hooks", "pipe"},
    "attention": {"closed", "hooks", "layout", "macs", "pipe"},
    "thinning": {"attention", "blocksparse", "pipe"},
    "borrowed": {"errors", "pipe"},
    "trace": {"blocks", "errors", "pipe"},
    "effect": {"errors", "pipe", "trace"},
    "lora_files": {"errors"},
    "increments": {"factors", "hooks", "pipe"},
    "moments": {"increments", "pipe", "predictors"},
    "compensation": {"errors", "hooks", "increments", "lowrank", "moments", "pipe", "weights"},
    "gains": {"factors", "lowrank", "pipe", "quality"},
    "quality": {"errors"},
    "report": set(),
    "pretrained": {"quality"},
    "metrics": {"pretrained", "quality", "report"},
    "matrix.schema": {"report"},
    "matrix.words": {"adapter", "errors", "layers", "recipe"},
    "matrix.survey": {"adapter", "layers", "recipe", "report", "matrix.words"},
    "matrix.markdown": {"matrix.schema"},
    "matrix.page": {"errors", "files", "matrix.schema"},
    "pictures": {"errors"},
    "build": {"adapter", "errors", "pipe", "plan", "recipe"},
    "sample": {"clock", "errors", "pipe", "recipe"},
    "rehearsal": {"factors", "pipe", "quality", "recipe", "sample"},
}
"""Rooms not named here are built upon all of these. Imports for type checkers only do not count."""

FORBIDDEN = {"utils", "helpers", "common", "base", "core", "manager", "handler", "engine", "interface"}
ADAPTERS_MAY_NOT = {"recipe", "plan", "build", "stack", "cli", "run", "show", "bench", "matrix", "batch", "commands"}


def imports(path: Path) -> set[str]:
    """The rooms of ditstack that a file imports when it runs, inside functions too."""
    tree = ast.parse(path.read_text())
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in typing_only or not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        root, _, room = node.module.partition(".")
        if root == "ditstack" and (HOUSE / room.replace(".", "/")).is_dir():
            found |= {f"{room}.{alias.name}".lstrip(".") for alias in node.names}
        elif root == "ditstack":
            found.add(room)
        elif root.startswith("ditstack"):
            found.add(root.removeprefix("ditstack"))
    return found


@pytest.mark.parametrize("path", STACK, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_room_of_the_stack_imports_only_what_it_may(path: Path) -> None:
    found = imports(path)
    assert not any(name.startswith("_adapters") for name in found), "only adapter.find reaches the adapters"
    room = ".".join(path.relative_to(HOUSE).with_suffix("").parts)
    if room in MAY_IMPORT:
        assert found <= MAY_IMPORT[room]
    if path.parent.name != "commands" and path.stem != "cli":
        assert not {room.split(".")[0] for room in found} & {"cli", "commands", "terminal"}


@pytest.mark.parametrize("path", ADAPTERS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_an_adapter_speaks_of_facts_and_never_of_another_adapter(path: Path) -> None:
    text = path.read_text()
    assert not {room.split(".")[0] for room in imports(path)} & ADAPTERS_MAY_NOT
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
    room = tmp_path / "clock.py"
    room.write_text("def late():\n    from ditstack.recipe import Recipe\n")
    assert imports(room) == {"recipe"}
    room.write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ditstack.recipe import Recipe\n")
    assert imports(room) == set()
