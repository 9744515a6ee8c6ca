"""CONTRIBUTING shows how a method is added: its very text is laid out in a folder of its own, found there, and run."""

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from ditstack.recipe.adapter import find, methods

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The files that CONTRIBUTING shows, in a folder on the path that is no part of this house."""
    for name, text in SHOWN:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("ditstack_adapters.cache.late")]:
        del sys.modules[name]


def module_of(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_file_one_test_and_one_recipe_of_forty_lines_are_a_method(folder: Path) -> None:
    assert [Path(name).name for name, _ in SHOWN] == ["late.py", "test_late.py", "tiny-none-native-late.yaml"]
    assert sum(text.count("\n") for _, text in SHOWN) <= 40
    assert {"late", "reuse"} <= set(methods("cache"))
    assert find("cache", "late").__module__ == "ditstack_adapters.cache.late"
    module_of(folder / "test_late.py").test_only_late_steps_are_reused()
