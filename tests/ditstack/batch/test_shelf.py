"""Shelf: every recipe for the embedded model goes through a batch, rounded weights, fitted factors and all."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ditstack import load
from ditstack.batch.run import Job
from ditstack.batch.spec import BatchSpec
from ditstack.recipe.layers import shelf_names
from ditstack.recipe.recipe import Recipe

SAID = ["a red circle in the center on a plain gray background", "a blue star in the top left on a pink background"]
TINY = [name for name in shelf_names() if name.startswith("tiny")]


def quick(name: str) -> list[str]:
    """What to change in a recipe so that it samples in few steps and fits to few prompts."""
    adapters = Recipe.read(name).adapters
    steps = next((one.schedule_steps for one in adapters.values() if one.schedule_steps), 3)
    more = ["compile.backend=eager"] if "compile" in adapters else []
    more += ["distill.iterations=1", "distill.batch=1"] if name.endswith("eval") else []
    return [f"sampler.steps={steps}", f"calibration={SAID * 2}", "model.device=cpu", *more]


def slow_where_fitted(name: str) -> Any:
    fitted = any(adapter.wants_factors for _, adapter in Recipe.read(name).stages())
    return pytest.param(name, marks=[pytest.mark.slow] if fitted or "compiled" in name else [])


def prompts(folder: Path) -> Path:
    (folder / "prompts.txt").write_text("a red circle\na blue star\na green square\n")
    return folder / "prompts.txt"


@pytest.mark.parametrize("name", [slow_where_fitted(name) for name in TINY])
def test_a_recipe_on_the_shelf_makes_a_batch_with_its_report(tmp_path: Path, name: str) -> None:
    report = Job(BatchSpec(Recipe.read(name, quick(name)), prompts(tmp_path), tmp_path / "out", 2)).run()
    assert report is not None
    assert (report.complete, report.pictures, report.failures) == (True, 3, 0)
    assert report.weights


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny-int8-native-svdcache", "tiny-none-native-icc", "tiny-nf4-native-icc"])
def test_two_processes_make_the_pictures_of_rounded_and_fitted_stacks_once(tmp_path: Path, name: str) -> None:
    command = [str(Path(sys.executable).parent / "ditstack"), "batch", name]
    command += [str(prompts(tmp_path)), "--out", str(tmp_path / "out"), "--batch-size", "2", "--devices", "2"]
    command += [word for change in quick(name) for word in ("--set", change)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["complete"], report["pictures"], len(report["devices"])) == (True, 3, 2)
    assert report["weights"]


def test_the_fingerprint_is_the_same_inside_inference_mode() -> None:
    import torch

    from ditstack.factors import fingerprint

    stack = load(Recipe.read("tiny-int8-native-svdcache", ["model.device=cpu"]))
    with torch.inference_mode():
        inside = fingerprint(stack.pipe.transformers)
    assert inside == fingerprint(stack.pipe.transformers)
