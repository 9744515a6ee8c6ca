"""Plans: facts followed through the stages, nothing loaded."""

import sys
from pathlib import Path
from subprocess import run

import pytest

from ditstack.errors import Incompatible, RecipeError
from ditstack.recipe.adapter import find, methods
from ditstack.recipe.capabilities import Capability, machine
from ditstack.recipe.plan import check_plan, is_by_facts_alone, plan
from ditstack.recipe.recipe import Recipe


def test_fp8_activations_are_refused_where_there_is_no_such_gpu() -> None:
    if Capability.SM89 in machine():
        pytest.skip("this machine has compute capability 8.9")
    with pytest.raises(Incompatible, match=r"quantize torchao requires that the GPU is of compute capability 8\.9"):
        check_plan(Recipe.read("tiny-int8-native-svdcache", ["quantize.scheme=fp8dq"]))


def test_every_stage_says_what_it_takes_and_gives() -> None:
    steps = {step.stage: step for step in plan(Recipe.read("tiny-int8-native-svdcache"))}
    assert Capability.FLOAT_WEIGHTS in steps["quantize"].before
    assert Capability.FLOAT_WEIGHTS not in steps["quantize"].after
    assert not any(step.reasons for step in steps.values())


def test_planning_does_not_import_the_heavy_libraries() -> None:
    code = (
        "import sys; from ditstack.recipe.recipe import Recipe; from ditstack.recipe.plan import plan;"
        "plan(Recipe.read('tiny-int8-native-svdcache'));"
        "sys.exit(','.join(m for m in ('diffusers', 'transformers', 'torchao') if m in sys.modules) or 0)"
    )
    done = run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_method_names_a_capability_of_its_own_and_the_machine_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def probe(device: str) -> bool:
        asked.append(device)
        return device == "cpu"

    own = Capability("the machine hums", probe)
    assert own == Capability("the machine hums")
    reuse = find("cache", "reuse")
    monkeypatch.setattr(reuse, "needs", property(lambda self: frozenset({own})))
    recipe = Recipe.read("tiny-none-native-reuse")
    check_plan(recipe, "cpu")
    with pytest.raises(Incompatible, match="cache reuse requires that the machine hums"):
        check_plan(recipe, "cuda:1")
    assert asked == ["cpu", "cuda:1"]
    assert not is_by_facts_alone(plan(recipe, "cuda:1"))


def test_two_files_for_one_word_are_refused_and_both_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    once = sys.modules[find("cache", "reuse").__module__].__file__
    twice = tmp_path / "ditstack_adapters" / "cache" / "reuse.py"
    twice.parent.mkdir(parents=True)
    twice.write_text("raise SystemExit('never imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "reuse" in methods("cache")
    with pytest.raises(RecipeError) as caught:
        find("cache", "reuse")
    assert "'reuse' is defined twice" in str(caught.value)
    assert str(twice) in str(caught.value)
    assert str(once) in str(caught.value)
    with pytest.raises(RecipeError, match="is defined twice"):
        Recipe.read("tiny-none-native-reuse")
    assert find("cache", "icc")
