"""The command line: one clear message and exit code 2 for what a user can mend; nothing left behind."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import run as execute

import pytest
import torch
import yaml
from PIL import Image

from ditstack.cli import app
from ditstack.recipe.recipe import Recipe
from ditstack.testing import tiny_pipelines as tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "flux"
    tiny.flux().save_pretrained(folder)
    return folder


@pytest.fixture
def recipe(tmp_path: Path, model: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"model: {{method: flux, source: {model}, device: cpu}}\n"
        "cache: {method: svdcache, interval: 2}\n"
        "sampler: {steps: 4, guidance: 3.5, size: 16x16}\n"
        "prompts: [a red circle, a blue star]\n"
    )
    return path


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command; returns its exit code, standard output and standard error."""
    monkeypatch.setattr("ditstack.compat.hush", lambda: None)

    def ditstack(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ditstack", *map(str, words)])
        code = 0
        try:
            app.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return ditstack


def test_a_run_leaves_pictures_grid_recipe_and_report(call: Call, recipe: Path, tmp_path: Path) -> None:
    code, out, err = call("run", recipe, "--compare", "--json", "--out", tmp_path / "out")
    assert code == 0, err
    report = json.loads(out)
    assert report["steps"] == {"full": 2, "forecast": 2}
    assert len(report["compare"]["psnr"]["each"]) == 2
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    pictures = ["000-a-red-circle.png", "001-a-blue-star.png"]
    assert names == [".ditstack", *pictures, "grid.png", "plain", "recipe.yaml", "report.json"]
    with Image.open(tmp_path / "out" / "grid.png") as grid:
        assert grid.width > 400
    assert json.loads((tmp_path / "out" / "report.json").read_text())["weights"]


def test_the_resolved_recipe_makes_identical_pictures_again(call: Call, recipe: Path, tmp_path: Path) -> None:
    assert call("run", recipe, "--out", tmp_path / "a", "--set", "cache.interval=3", "--seed", 7)[0] == 0
    assert call("run", tmp_path / "a" / "recipe.yaml", "--out", tmp_path / "b")[0] == 0
    for name in ("000-a-red-circle.png", "001-a-blue-star.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_outputs_are_not_overwritten_in_silence(call: Call, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep me")
    code, _, err = call("run", recipe, "--out", tmp_path / "out")
    assert (code, "holds something already" in err) == (2, True)
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep me"
    assert call("run", recipe, "--out", tmp_path / "out", "--overwrite")[0] == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


WRONG = [
    ("cache: {method: svdcache, intervall: 2}", "cache.intervall: unknown key; did you mean 'interval'?"),
    ("cache: svdcash", "unknown method 'svdcash'; did you mean 'svdcache'?"),
    ("cache: {method: svdcache, interval: two}", "found 'two'; input should be a valid integer"),
    ("cache: {method: svdcache, interval: -2}", "found -2; input should be greater than or equal to 1"),
    ("extends: wrong.yaml", "a cycle: wrong.yaml -> wrong.yaml"),
    ("quantize: {method: torchao, scheme: fp8dq}", "compute capability 8.9"),
    ("model: {method: flux, source: ./nowhere}", "there is no folder ./nowhere"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_a_wrong_recipe_is_answered_in_a_sentence_and_leaves_nothing(
    call: Call, tmp_path: Path, text: str, message: str
) -> None:
    if "fp8dq" in text and torch.cuda.is_available():
        pytest.skip("this machine may run it")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(text if "extends" in text else f"extends: tiny\n{text}")
    code, out, err = call("run", wrong, "--out", tmp_path / "out")
    assert code == 2
    assert message in " ".join(err.split())
    assert "Traceback" not in err
    assert (out, [path.name for path in tmp_path.iterdir()]) == ("", ["wrong.yaml"])


def test_a_prompts_file_that_cannot_be_read_is_one_sentence(call: Call, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "empty.txt").write_text("\n \n")
    for name, message in (
        ("missing.txt", "No such file"),
        ("latin.txt", "is not UTF-8 text"),
        ("empty.txt", "holds no prompt"),
    ):
        code, _, err = call("run", recipe, "--prompts", tmp_path / name, "--out", tmp_path / "out")
        assert code == 2
        assert message in " ".join(err.split())
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_one_sentence(call: Call, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    code, _, err = call("run", recipe, "--out", tmp_path / "file" / "out")
    assert code == 2
    assert "cannot be written" in " ".join(err.split())


def test_a_run_that_dies_leaves_no_half_written_folder(
    call: Call, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ditstack.paper.save_all", die)
    assert call("run", recipe, "--out", tmp_path / "out" / "deep")[0] == 130
    assert not list((tmp_path / "out").iterdir())


def test_flags_are_checked_like_the_recipe(call: Call, recipe: Path) -> None:
    code, _, err = call("run", recipe, "--steps", 0, "--size", "64")
    assert code == 2
    assert "sampler.steps: found 0" in err
    assert "sampler.size: found 64" in err


def test_show_recipes_and_doctor_answer(call: Call) -> None:
    assert "svdcache" in call("show", "tiny-int8-native-svdcache")[1]
    assert Recipe.parse(yaml.safe_load(call("show", "tiny", "--resolved")[1])) == Recipe.read("tiny")
    rows = json.loads(call("recipes", "--json")[1])
    assert {"tiny", "tiny-int8-native-svdcache"} <= {row["recipe"] for row in rows if not row["cannot"]}
    assert "torch" in json.loads(call("doctor", "--json")[1])["versions"]


def test_an_unknown_option_is_a_usage_error_without_a_traceback(call: Call) -> None:
    code, _, err = call("run", "tiny", "--stepps", 3)
    assert code == 2
    assert "No such option" in err


def test_the_command_is_installed() -> None:
    done = execute([str(Path(sys.executable).with_name("ditstack")), "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "calibrate" in done.stdout


def test_a_search_writes_a_recipe_within_its_budget_and_replaces_none(call: Call, recipe: Path, tmp_path: Path) -> None:
    prompts, found = tmp_path / "prompts.txt", tmp_path / "found.yaml"
    prompts.write_text("\n".join(f"a {colour} circle" for colour in ("red", "blue", "green", "pink", "black", "white")))
    text = recipe.read_text().replace("{method: svdcache, interval: 2}", "{method: mixed, rank: 0}")
    recipe.write_text(text)
    words = ("search", recipe, "--macs", 0.6, "--prompts", prompts, "--tries", 2, "--out", found)
    code, out, err = call(*words)
    assert code == 0, err
    assert "on prompts set aside" in out
    letters = Recipe.read(found).resolved()["cache"]["schedule"]
    assert len(letters) == 4
    assert letters.count("F") <= 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.yaml", "mine.yaml", "prompts.txt"]
    code, out, err = call(*words)
    assert code == 2
    assert "is there already" in err
