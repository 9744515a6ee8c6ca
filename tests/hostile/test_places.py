"""Names and folders at random, and a folder full of the user's own files under every command."""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from cases import FIGURES, Figure, counts, one_case
from hypothesis import given
from hypothesis import strategies as st

from ditstack.cli import app
from ditstack.errors import BadPipeline
from ditstack.folders import folder_atomically
from ditstack.marks import MARK

NAMES = st.text(max_size=20) | st.sampled_from(
    ["n" * 256, "[/red]", "~", "~x-y-z", "..", ".", "/", "\0", "-", " ", "a/b"]
)


@given(NAMES, st.booleans())
@counts(60, 1000)
def test_a_folder_of_any_name_is_written_or_refused_and_nothing_else_is_touched(name: str, overwrite: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "own"
        own.mkdir()
        (own / "mine").write_text("keep me")
        target = own / name.lstrip("/~") if name != "~x-y-z" else Path(name)
        with one_case("names of folders"):
            with folder_atomically(target, overwrite) as inner:
                (inner / "x").write_text("1")
            assert (target.resolve() / MARK).is_file()
        assert (own / "mine").read_text() == "keep me"
        assert not [path for path in Path(folder).rglob("*.ditstack") if path.name != MARK]


USERS = {
    "a.yaml": "extends: tiny\n",
    "report.json": "{}",
    "000-a-red-circle.png": "png",
    "grid.png": "x",
    "matrix.json": "{}",
    "manifest.jsonl": "{}\n",
    "pictures/a.png": "x",
    "work/notes.txt": "x",
    "f.safetensors": "mine",
    "p.txt": "a red circle\n",
    "shards/00000000.tar": "x",
    ".hidden": "x",
    "recipe.yaml": "x",
    "f.safetensors.partial": "mine",
    "a.yaml.search": "{}",
}
TARGETS = [
    ".",
    "..",
    "../users",
    "here",
    "link",
    "link/.",
    "pictures",
    "a.yaml",
    "report.json",
    "dangling",
    "f.safetensors",
    "to-file",
    "link/../here",
    "work",
    ".hidden",
    "p.txt",
    "PICTURES",
    "A.YAML",
    "Report.json",
    "link/../A.YAML",
    "/",
    "~",
]
COMMANDS: dict[str, list[str]] = {
    "run": ["run", "tiny", "--prompt", "a red circle", "--steps", "1"],
    "calibrate": ["calibrate", "tiny-none-native-icc", "--samples", "2"],
    "matrix": ["matrix", "--model", "tiny", "--methods", "cache=none", "--prompts", "2"],
    "tune": ["tune", "--model", "tiny", "--psnr-min", "30", "--prompts", "2"],
    "search": ["search", "tiny-none-native-mixed"],
    "batch": ["batch", "tiny", "p.txt"],
    "schema": ["schema"],
}
OVERWRITING = ("run", "tune")
"""Commands that know --overwrite."""
WITHOUT_OUTPUT: dict[str, list[list[str]]] = {
    "check": [["check", "tiny-int8-native-svdcache"], ["check", "a.yaml"]],
    "doctor": [["doctor"], ["doctor", "--json"]],
    "explain": [["explain", "tiny-int8-native-svdcache"], ["explain", "a.yaml"]],
    "recipes": [["recipes"], ["recipes", "--json"]],
    "schema": [["schema"]],
    "show": [["show", "a.yaml"], ["show", "tiny", "--resolved"], ["show", "svdcache"]],
}


def everything(folder: Path) -> dict[str, object]:
    return {
        str(one.relative_to(folder)): os.readlink(one) if one.is_symlink() else one.read_bytes() if one.is_file() else 0
        for one in folder.rglob("*")
        if not {".cache", ".config"} & {*one.parts}  # other libraries' in the home folder
    }


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's, which is the working folder, with links that lead to it and out of it."""
    folder = tmp_path / "users"
    for name, text in USERS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "here").symlink_to(".")
    (folder / "link").symlink_to("pictures")
    (folder / "to-file").symlink_to("a.yaml")
    (folder / "dangling").symlink_to("/nowhere/at/all")
    for name in ("PICTURES", "A.YAML", "Report.json"):  # what a disk that folds case takes for the file itself
        (folder / name).symlink_to(name.lower())
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_of_the_users_own_files_survives_every_command(
    command: str, users: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(*_: object, **__: object) -> None:
        pytest.fail("the work began")

    loads: list[Callable[..., object]] = []
    monkeypatch.setattr("ditstack.compat.hush", lambda: loads.clear())
    monkeypatch.setattr("ditstack_adapters.model.tiny.Tiny.load", work)
    before = everything(users.parent)
    figure = FIGURES.setdefault("commands pointed at the user's own files", Figure())
    for target in TARGETS:
        for more in ([], ["--overwrite"]) if command in OVERWRITING else ([],):
            monkeypatch.setattr(sys, "argv", ["ditstack", *COMMANDS[command], "--out", target, *more])
            with pytest.raises(SystemExit) as stop:
                app.main()
            told = capsys.readouterr().err
            assert stop.value.code == 2, (target, told)
            assert "Traceback" not in told
            assert everything(users.parent) == before, target
            figure.cases, figure.refused = figure.cases + 1, figure.refused + 1


@pytest.mark.parametrize("command", WITHOUT_OUTPUT)
def test_a_command_without_an_output_touches_nothing(
    command: str, users: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(*_: object, **__: object) -> None:
        raise BadPipeline("there is no model here")

    monkeypatch.setattr("ditstack.compat.hush", lambda: None)
    monkeypatch.setattr("ditstack_adapters.model.tiny.Tiny.load", absent)
    before, figure = everything(users.parent), FIGURES.setdefault("commands in a folder of the user's own", Figure())
    for words in WITHOUT_OUTPUT[command]:
        monkeypatch.setattr(sys, "argv", ["ditstack", *words])
        with pytest.raises(SystemExit) as stop:
            app.main()
        assert stop.value.code == (2 if command in ("check", "explain") else None) or not stop.value.code
        assert "Traceback" not in capsys.readouterr().err
        assert everything(users.parent) == before, words
        figure.cases, figure.refused = figure.cases + 1, figure.refused + (stop.value.code == 2)


def test_no_command_and_no_overwrite_was_forgotten() -> None:
    found = typer.main.get_command(app.app)
    known = {name: {word for one in inner.params for word in one.opts} for name, inner in found.commands.items()}  # pyright: ignore[reportAttributeAccessIssue]
    assert {name for name, words in known.items() if "--out" in words} == {*COMMANDS}
    assert {name for name, words in known.items() if "--overwrite" in words} == {*OVERWRITING}
    assert known.keys() == {*COMMANDS, *WITHOUT_OUTPUT}
