"""What the start page and the cookbook show runs as it stands, on a CPU, with fewer steps; titled blocks want more."""

from __future__ import annotations

import re
import shlex
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ditstack.cli import border
from ditstack.cli.app import app
from ditstack.compat import usage_error
from ditstack.recipe.layers import shelf_names
from ditstack.recipe.memory.planned import planned
from ditstack.recipe.recipe import Recipe

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "docs" / "index.md", *sorted((ROOT / "docs" / "cookbook").glob("*.md"))]
CODE = re.compile(r"^```(\w+)(?: title=\"([^\"]*)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SAMPLES = ("run", "check", "explain", "batch")
"""Commands that make pictures: with two steps here, unless they say how many."""


def blocks(page: Path) -> Iterator[tuple[str, str, str]]:
    """Language, title and text of each block of code."""
    for found in CODE.finditer(page.read_text(encoding="utf-8")):
        yield found[1], found[2] or "", found[3]


def command(text: str) -> int:
    """Run a line as the command line would, in this process."""
    words = shlex.split(text, comments=True)
    assert words[0] == "ditstack", text
    fewer = ["--set", "sampler.steps=2"] if words[1] in SAMPLES and "--steps" not in words else []
    return border.run(lambda: app([*words[1:], *fewer], standalone_mode=False), usage_error())


@pytest.mark.parametrize(
    "page",
    [pytest.param(one, marks=pytest.mark.slow) if one.stem == "index" else one for one in PAGES],
    ids=lambda page: page.stem,
)
def test_every_block_that_needs_no_more_than_a_cpu_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {"__name__": "__main__"}
    for language, title, text in blocks(page):
        if language == "yaml" and (name := re.match(r"# (\S+\.yaml)\n", text)):
            Path(name[1]).write_text(text, encoding="utf-8")
        elif title.endswith(".csv"):
            Path(title).write_text(text, encoding="utf-8")
        elif title:
            continue
        elif language == "python":
            with warnings.catch_warnings(action="ignore"):
                exec(compile(text.replace("steps=28", "steps=2"), page.name, "exec"), scope)
        else:
            assert language == "sh", f"a block of {language} without a title, in {page.name}"
            for line in text.strip().splitlines():
                with warnings.catch_warnings(action="ignore"):
                    # 3: measured, and the gate is missed, as it may be with so few steps
                    assert command(line) in ((0, 3) if " check " in line else (0,)), line


def test_the_cache_that_the_cookbook_shows_runs_below_any_folder_that_python_imports_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = ROOT / "docs" / "cookbook" / "own_cache.md"
    shown = next(text for _, _, text in blocks(page) if text.startswith("# drift.yaml"))
    file = "ditstack_adapters/cache/drift.py"
    assert f"<!-- file: examples/plugin/{file} -->" in page.read_text(encoding="utf-8")
    (tmp_path / file).parent.mkdir(parents=True)
    shutil.copy(ROOT / "examples" / "plugin" / file, tmp_path / file)
    (tmp_path / "drift.yaml").write_text(shown, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert command("ditstack show drift") == 0
    assert "share of noise" in capsys.readouterr().out
    assert command("ditstack run drift.yaml --steps 6 --prompt 'a red circle'") == 0


def test_every_recipe_and_file_that_the_pages_name_is_there() -> None:
    for page in [*PAGES, *(ROOT / "docs").glob("*.md")]:
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"`((?:tiny|flux|wan|ltx|sd3|dit|pixart|qwenimage|hunyuanvideo)-[\w-]+)`", text):
            assert name in shelf_names() or name == "tiny-4step-lora", f"{page.name}: {name}"
        for _, title, code in blocks(page):
            if title.endswith(".yaml"):
                yaml.safe_load(code)


def test_what_the_cookbook_names_for_a_gpu_is_planned_to_fit_there() -> None:
    page = (ROOT / "docs" / "cookbook" / "which.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) GB[^|]*\| `(\S+)(?: --set (\S+))?` \|", page, re.MULTILINE)
    assert len(rows) >= 4
    for room, name, change in rows:
        plan = planned(Recipe.read(name, [change] if change else []), "cuda")
        assert plan is not None
        assert plan.needs <= int(room) * 1e9, f"{name} on {room} GB: {plan}"
