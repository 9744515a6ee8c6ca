"""The examples are short, and run as they stand."""

import ast
import builtins
import json
import re
import runpy
import sys
import warnings
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.filterwarnings("default")
def test_the_lightning_example_makes_its_pictures_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = EXAMPLES / "lightning_user.py"
    assert example.read_text().count("\n") <= 30
    (tmp_path / "prompts.csv").write_text("id,prompt\na,a red circle\nb,a blue star\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(example), "prompts.csv", "out/pictures"])
    for _ in range(2):
        runpy.run_path(str(example), run_name="__main__")
        lines = (tmp_path / "out" / "pictures" / "manifest.jsonl").read_text().splitlines()
        assert [json.loads(line)["id"] for line in lines] == ["a", "b"]
    assert list((tmp_path / "out" / "logs").rglob("metrics.csv"))


def test_the_cookbook_shows_a_lightning_program_that_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (EXAMPLES.parent / "docs" / "cookbook" / "batches.md").read_text()
    shown = next(code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "lightning" in code)
    (tmp_path / "prompts.csv").write_text("id,prompt,steps\na,a red circle,2\nb,a blue star,2\n")
    (tmp_path / "program.py").write_text(shown)
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings(action="ignore"):
        runpy.run_path("program.py", run_name="__main__")
    assert {path.name for path in (tmp_path / "made" / "pictures").iterdir()} == {"a.png", "b.png"}


def unknown_names(code: str) -> set[str]:
    """Names that a program reads and neither makes, imports nor finds among the builtins."""
    nodes = [*ast.walk(ast.parse(code))]
    imported = {
        (one.asname or one.name).partition(".")[0]
        for node in nodes
        for one in getattr(node, "names", [])
        if isinstance(one, ast.alias)
    }
    names = [node for node in nodes if isinstance(node, ast.Name)]
    made = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    made |= {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    made |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    return {node.id for node in names if isinstance(node.ctx, ast.Load)} - made - imported - set(dir(builtins))


def test_no_program_in_the_readme_lacks_an_import() -> None:
    programs = re.findall(r"```python\n(.*?)```", (EXAMPLES.parent / "README.md").read_text(), re.DOTALL)
    assert programs
    assert not [unknown_names(code) for code in programs if unknown_names(code)]
    assert unknown_names("pipe = FluxPipeline.from_pretrained('x', dtype=torch.bfloat16)") == {"FluxPipeline", "torch"}
