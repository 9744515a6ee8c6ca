"""Plans: facts followed through the stages, nothing loaded."""

import sys
from subprocess import run

import pytest

from ditstack.errors import Incompatible
from ditstack.recipe.capabilities import Capability, machine
from ditstack.recipe.plan import check, plan
from ditstack.recipe.recipe import Recipe


def test_fp8_activations_are_refused_where_there_is_no_such_gpu() -> None:
    if Capability.SM89 in machine():
        pytest.skip("this machine has compute capability 8.9")
    with pytest.raises(Incompatible, match=r"quantize torchao needs that the GPU is of compute capability 8\.9"):
        check(Recipe.read("tiny-int8-native-svdcache", ["quantize.scheme=fp8dq"]))


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
