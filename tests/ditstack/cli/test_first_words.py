"""What the command line answers before it works: help, version, completion, and refusals that wait for no library."""

import logging
import os
import re
import sys
from importlib.metadata import version
from subprocess import CompletedProcess
from subprocess import run as execute

import pytest

import ditstack
from ditstack.cli import logs
from ditstack.measure.show import shelf_rows
from ditstack.recipe.layers import shelf_names

HEAVY = ("torch", "diffusers", "transformers", "lightning", "numpy")

ASKS = f"""
import sys
from ditstack.cli.app import main
try:
    main()
except SystemExit as stop:
    print([name for name in {HEAVY} if name in sys.modules], stop.code)
"""
REPEATS = f"""
import sys
from ditstack.cli.app import main
for words in sys.stdin.read().splitlines():
    sys.argv[1:] = words.split()
    try:
        main()
    except SystemExit as stop:
        print("refused:", [name for name in {HEAVY} if name in sys.modules], stop.code, file=sys.stderr)
"""

REFUSED = [
    ("run tinny", "no recipe 'tinny'"),
    ("calibrate tinny", "no recipe 'tinny'"),
    ("check tinny", "no recipe 'tinny'"),
    ("explain tinny", "no recipe 'tinny'"),
    ("show tinny", "no recipe 'tinny'"),
    ("search tinny --out found.yaml", "no recipe 'tinny'"),
    ("matrix --model tinny --out out", "no recipe 'tinny'"),
    ("tune --model tinny --psnr-min 35", "no recipe 'tinny'"),
    ("batch tinny prompts.txt --out out", "no recipe 'tinny'"),
    ("run tiny --set cache.method=svdcash", "did you mean 'svdcache'"),
    ("run tiny-none-native-mixed --set cache.anchour=line", "did you mean 'anchor'"),
    ("check tiny --prompts nowhere.txt", "cannot be read"),
    ("run tiny --stepps 3", "No such option"),
]


def ask(code: str, words: str, **environment: str) -> CompletedProcess[str]:
    told = {**os.environ, **environment}
    return execute([sys.executable, "-c", code, *words.split()], capture_output=True, text=True, env=told)


def test_a_first_refusal_waits_for_no_large_library() -> None:
    asked = "\n".join(words for words, _ in REFUSED)
    done = execute([sys.executable, "-c", REPEATS], input=asked, capture_output=True, text=True)
    for (words, message), told in zip(REFUSED, done.stderr.split("refused:"), strict=False):
        assert message in " ".join(told.split()), words
    assert re.findall("refused: (.*)", done.stderr) == ["[] 2"] * len(REFUSED)


def test_the_module_the_command_and_the_package_say_one_version() -> None:
    assert ditstack.__version__ == version("ditstack")
    done = execute([sys.executable, "-m", "ditstack", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"ditstack {ditstack.__version__}\n")


def test_help_is_short_to_ask_for() -> None:
    done = ask(ASKS, "batch -h")
    assert "Usage" in done.stdout
    assert done.stdout.endswith("[] 0\n")


def test_commands_and_recipes_complete() -> None:
    asked = {"_DITSTACK_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    code = "import sys; sys.argv[0] = 'ditstack'; from ditstack.cli.app import main; main()"
    assert ask(code, "", COMP_WORDS="ditstack ca", **asked).stdout.split() == ["calibrate"]
    asked["COMP_CWORD"] = "2"
    found = ask(code, "", COMP_WORDS="ditstack run tiny-none-native-m", **asked).stdout.split()
    assert found == ["tiny-none-native-mixed"]


@pytest.mark.parametrize(
    ("verbose", "quiet", "told"), [(0, False, ["w", "e"]), (1, False, ["i", "w", "e"]), (0, True, ["e"])]
)
def test_v_tells_more_and_q_less(
    verbose: int, quiet: bool, told: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = logging.getLogger("ditstack")
    monkeypatch.setattr(log, "handlers", [])
    monkeypatch.setattr(log, "level", logging.NOTSET)
    logs.set_level(verbose, quiet)
    for say in (logging.Logger.debug, logging.Logger.info, logging.Logger.warning, logging.Logger.error):
        say(logging.getLogger("ditstack.somewhere"), say.__name__[0])
    assert [re.sub(r"^\S+ +", "", line).strip() for line in capsys.readouterr().err.splitlines()] == told


@pytest.mark.parametrize("words", ["-v show tiny", "show tiny -q"])
def test_verbosity_is_taken_before_and_behind_the_command(words: str) -> None:
    code = "import logging, sys\n" + ASKS + "print(logging.getLogger('ditstack').level)"
    wanted = logging.INFO if "-v" in words else logging.ERROR
    assert ask(code, words).stdout.splitlines()[-1] == str(wanted)


def test_show_takes_a_method_for_its_manual_and_a_recipe_for_its_plan() -> None:
    told = ask(ASKS, "show svdcache").stdout
    assert "arXiv 2601.07396" in told
    assert "energy: number > 0, <= 1, or none; default none" in told
    assert told.endswith("[] 0\n")
    assert '"const": "svdcache"' in ask(ASKS, "schema").stdout


def test_the_shelf_is_a_line_for_each_recipe_that_can_be_searched() -> None:
    asked = {"COLUMNS": "60"}
    lines = execute(
        [sys.executable, "-m", "ditstack", "recipes"], capture_output=True, text=True, env={**os.environ, **asked}
    ).stdout.splitlines()
    assert [line.split()[0] for line in lines] == shelf_names()
    told = dict(line.split(maxsplit=1) for line in lines)
    assert re.match(r"yes +0\.6 GB +- +The first thing to try", told["tiny-int8-native-svdcache"])
    assert "sageattention" in told["flux-int8-sage-icc"]
    assert all(len(row["about"].split()) > 3 for row in shelf_rows(shelf_names()))
