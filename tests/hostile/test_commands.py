"""Every command with files that are none of what it reads, and with numbers that cannot be: one sentence, at once."""

import os
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cases import FIGURES, Figure

from ditstack.cli import commands

RECIPES: dict[str, list[str]] = {
    "run": ["run", "{}", "--prompt", "x", "--out", "out"],
    "batch": ["batch", "{}", "p.txt", "--out", "out"],
    "calibrate": ["calibrate", "{}", "--out", "out.safetensors"],
    "check": ["check", "{}"],
    "explain": ["explain", "{}"],
    "matrix": ["matrix", "--model", "{}", "--out", "out"],
    "search": ["search", "{}", "--out", "out.yaml"],
    "show": ["show", "{}"],
    "tune": ["tune", "--model", "{}", "--psnr-min", "30", "--out", "out.yaml"],
}
PROMPTS: dict[str, list[str]] = {
    "run": ["run", "tiny", "--prompts", "{}", "--out", "out"],
    "batch": ["batch", "tiny", "{}", "--out", "out"],
    "calibrate": ["calibrate", "tiny-none-native-icc", "--prompts", "{}", "--out", "out.safetensors"],
    "check": ["check", "tiny-int8-native-svdcache", "--prompts", "{}"],
    "explain": ["explain", "tiny-int8-native-svdcache", "--prompts", "{}"],
    "matrix": ["matrix", "--model", "tiny", "--prompts", "{}", "--out", "out"],
    "search": ["search", "tiny-none-native-mixed", "--prompts", "{}", "--out", "out.yaml"],
    "tune": ["tune", "--model", "tiny", "--psnr-min", "30", "--prompts", "{}", "--out", "out.yaml"],
}
NUMBERS = [
    ["tune", "--model", "tiny", "--psnr-min", "nan", "--out", "out.yaml"],
    ["tune", "--model", "tiny", "--psnr-min", "inf", "--out", "out.yaml"],
    ["tune", "--model", "tiny", "--psnr-min", "x", "--out", "out.yaml"],
    ["tune", "--model", "tiny", "--out", "out.yaml"],
    ["tune", "--model", "tiny", "--psnr-min", "30", "--max-memory", "many", "--out", "out.yaml"],
    ["tune", "--model", "tiny", "--psnr-min", "30", "--max-memory", "-3GB", "--out", "out.yaml"],
    ["tune", "--model", "tiny", "--psnr-min", "30", "--methods", "cache=nope", "--out", "out.yaml"],
    ["tune", "--model", "tiny", "--psnr-min", "30", "--prompts", "999999", "--out", "out.yaml"],
    ["matrix", "--model", "tiny", "--methods", "=", "--out", "out"],
    ["matrix", "--model", "tiny", "--methods", "cache=", "--out", "out"],
    ["matrix", "--model", "tiny", "--methods", "nope=none", "--out", "out"],
    ["matrix", "--model", "tiny", "--methods", "cache=../../x", "--out", "out"],
    ["matrix", "--model", "tiny", "--methods", "cache=[/red]", "--out", "out"],
    ["matrix", "--model", "tiny", "--prompts", "9" * 5000, "--out", "out"],
    ["matrix", "--model", "tiny", "--prompts", "-1", "--out", "out"],
    ["check", "tiny", "--prompts", "1e9"],
    ["explain", "tiny", "--prompts", "99999999"],
    ["search", "tiny", "--out", "out.yaml"],
    ["search", "tiny-none-native-mixed", "--macs", "nan", "--out", "out.yaml"],
    ["search", "tiny-none-native-mixed", "--time", "nan", "--out", "out.yaml"],
    ["search", "tiny-none-native-mixed", "--size", "nan", "--out", "out.yaml"],
    ["search", "tiny-none-native-mixed", "--size", "inf", "--out", "out.yaml"],
    ["search", "tiny-none-native-mixed", "--size", "-1", "--out", "out.yaml"],
    ["search", "tiny-none-native-mixed", "--size", "1e400", "--out", "out.yaml"],
    ["search", "tiny-none-native-mixed", "--size", "2.5", "--out", "out.yaml"],
    ["search", "tiny-none-native-mixed", "--sampler", "nope", "--out", "out.yaml"],
    ["search", "tiny-none-native-mixed", "--sampler", ",,", "--out", "out.yaml"],
    ["search", "tiny-none-native-mixed", "--sampler", "[/red]-\u0663", "--out", "out.yaml"],
    ["search", "tiny-none-native-mixed", "--tries", "0", "--out", "out.yaml"],
    ["calibrate", "tiny-none-native-icc", "--samples", "1", "--out", "out.safetensors"],
    ["calibrate", "tiny-none-native-icc", "--pictures", "-1", "--out", "out.safetensors"],
    ["calibrate", "tiny", "--out", "out.safetensors"],
    ["run", "tiny", "--prompt", "x", "--seed", "9" * 400, "--out", "out"],
    ["run", "tiny", "--prompt", "x", "--guidance", "nan", "--out", "out"],
    ["run", "tiny", "--prompt", "x", "--steps", "-1", "--out", "out"],
    ["run", "tiny", "--prompt", "x", "--size", "\u0663x\u0663", "--out", "out"],
    ["batch", "tiny", "p.txt", "--batch-size", "\u0663x", "--out", "out"],
    ["batch", "tiny", "p.txt", "--devices", "0", "--out", "out"],
    ["batch", "tiny", "p.txt", "--shards", "-1", "--out", "out"],
    ["batch", "tiny", "p.txt", "--precision", "nope", "--out", "out"],
    ["schema", "--out", "p.txt"],
    ["schema", "--out", "folder"],
    ["schema", "--out", "pipe"],
    ["schema", "--out", "dangling"],
    ["schema", "--out", "p.txt/x"],
    ["schema", "--out", "n" * 256],
    ["schema", "--out", "~nobody-of-this-name/x"],
    ["show", "cache/nope"],
    ["show", "../cache/svdcache"],
    ["show", "\udcff"],
    ["show", ""],
    ["recipes", "more"],
    ["doctor", "--nope"],
]


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of files that are no recipes and no prompts, in a working folder of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    os.mkfifo("pipe")
    os.mkfifo("pipe.yaml")
    Path("zero.yaml").symlink_to("/dev/zero")
    Path("zero.txt").symlink_to("/dev/zero")
    Path("dangling").symlink_to("/nowhere/at/all")
    Path("dangling.yaml").symlink_to("/nowhere/at/all")
    for name in ("folder", "folder.yaml", "folder.txt"):
        Path(name).mkdir()
    broken: dict[str, bytes] = {
        "empty": b"",
        "mark": b"\xef\xbb\xbf",
        "latin": b"caf\xe9\n",
        "wide": "a\n".encode("utf-16"),
    }
    broken |= {"nul": b"\0" * 100, "large": b"x: " + b"y" * 2_000_000}
    for name, data in broken.items():
        Path(f"{name}.yaml").write_bytes(data)
        Path(f"{name}.txt").write_bytes(data)
    Path("p.txt").write_text("a red circle\n")
    return sorted(path.name for path in tmp_path.iterdir())


Refuse = Callable[[list[str]], str]


@pytest.fixture
def refused(there: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Runs a command that must be refused in a sentence, before any model is loaded, leaving nothing."""
    from ditstack.cli import app

    def load(*_: object, **__: object) -> None:
        pytest.fail("a model was loaded")

    monkeypatch.setattr("ditstack.compat.hush", lambda: None)
    monkeypatch.setattr("ditstack_adapters.model.tiny.Tiny.load", load)
    figure = FIGURES.setdefault("commands given what they cannot use", Figure())

    def run(words: list[str]) -> str:
        monkeypatch.setattr(sys, "argv", ["ditstack", *words])
        with pytest.raises(SystemExit) as stop:
            app.main()
        told = capsys.readouterr().err
        assert stop.value.code == 2, (words, told)
        assert told.strip(), words
        assert "Traceback" not in told
        assert len(told) < 4_000, words
        assert sorted(path.name for path in Path().iterdir()) == there, words
        figure.cases, figure.refused = figure.cases + 1, figure.refused + 1
        return told

    return run


@pytest.mark.parametrize("command", RECIPES)
def test_a_recipe_that_is_none_is_one_sentence_of_every_command(
    command: str, there: list[str], refused: Refuse
) -> None:
    for name in [one for one in there if one.endswith(".yaml")]:
        refused([name if word == "{}" else word for word in RECIPES[command]])


@pytest.mark.parametrize("command", PROMPTS)
def test_prompts_that_are_none_are_one_sentence_of_every_command(
    command: str, there: list[str], refused: Refuse
) -> None:
    rows = {"large.txt", "latin.txt", "wide.txt", "nul.txt"} if command == "batch" else set()  # lines of errors.jsonl
    for name in [one for one in there if one not in {"p.txt", *rows} and not one.endswith(".yaml")]:
        refused([name if word == "{}" else word for word in PROMPTS[command]])


@pytest.mark.parametrize("words", NUMBERS, ids=range(len(NUMBERS)))
def test_what_an_option_cannot_be_is_one_sentence(words: list[str], refused: Refuse) -> None:
    refused(words)


def test_no_command_was_forgotten() -> None:
    known = {name for _, name, _ in pkgutil.iter_modules(commands.__path__)}
    assert known == {*RECIPES, *PROMPTS, *(words[0] for words in NUMBERS)}
