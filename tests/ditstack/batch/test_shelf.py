"""Shelf: every recipe for the embedded model goes through a batch, rounded weights, fitted factors and all."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ditstack import load
from ditstack.batch.run import Job
from ditstack.batch.spec import BatchSpec
from ditstack.calibration.sampler.fit import SamplerWish
from ditstack.recipe.layers import shelf_names
from ditstack.recipe.recipe import Recipe

SAID = ["a red circle in the center on a plain gray background", "a blue star in the top left on a pink background"]
TINY = [name for name in shelf_names() if name.startswith("tiny")]


def quick(name: str) -> list[str]:
    """What to change in a recipe so that it samples in few steps and fits to few prompts."""
    adapters = Recipe.read(name).adapters
    steps = next((one.schedule_steps for one in adapters.values() if one.schedule_steps), 3)
    more = ["compile.backend=eager"] if "compile" in adapters else []
    if name.endswith("eval"):
        steps, more = 2, [*more, "distill.iterations=1", "distill.tries=1", "distill.evaluations=2"]
    return [f"sampler.steps={steps}", f"calibration={SAID * 2}", "model.device=cpu", *more]


def slow_where_fitted(name: str) -> Any:
    fitted = any(adapter.wants_factors for _, adapter in Recipe.read(name).stages())
    return pytest.param(name, marks=[pytest.mark.slow] if fitted or "compiled" in name else [])


def prompts(folder: Path) -> Path:
    (folder / "prompts.txt").write_text("a red circle\na blue star\na green square\n")
    return folder / "prompts.txt"


@pytest.mark.parametrize("name", [slow_where_fitted(name) for name in TINY])
def test_a_recipe_on_the_shelf_makes_a_batch_with_its_report(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SamplerWish, "reference_steps", 6)
    report = Job(BatchSpec(Recipe.read(name, quick(name)), prompts(tmp_path), tmp_path / "out", 2)).run()
    assert report is not None
    assert (report.complete, report.pictures, report.failures) == (True, 3, 0)
    assert report.weights


BOTH = """
import json, sys
from pathlib import Path
import torch
from test_shelf import prompts, quick
from ditstack.batch.run import Job
from ditstack.batch.spec import BatchSpec
from ditstack.calibration.sampler.fit import SamplerWish
from ditstack.recipe.recipe import Recipe

torch.set_num_threads(1)
SamplerWish.reference_steps = 6
folder = Path(sys.argv[1])
for name in sys.argv[2:]:
    spec = BatchSpec(Recipe.read(name, quick(name)), folder / "prompts.txt", folder / name, 2)
    report = Job(spec, devices=2).run()
    if report is not None:
        found = [report.complete, report.pictures, report.failures, len(report.devices), bool(report.weights)]
        print(json.dumps([name, found]), flush=True)
"""
"""What each of two processes does: every recipe in turn, so that libraries are imported once."""


@pytest.mark.slow
def test_two_processes_make_the_pictures_of_every_recipe_once(tmp_path: Path) -> None:
    prompts(tmp_path)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    known = {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
    known |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    known |= {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", BOTH, str(tmp_path), *TINY],
            env={**os.environ, **known, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in "01"
    ]  # fmt: skip
    told = [one.communicate() for one in started]
    assert [one.returncode for one in started] == [0, 0], told[0][1][-2000:] + told[1][1][-2000:]
    found = dict(map(json.loads, told[0][0].splitlines()))
    assert found == {key: [True, 3, 0, 2, True] for key in TINY}


def test_the_fingerprint_is_the_same_inside_inference_mode() -> None:
    import torch

    from ditstack.factors import fingerprint

    stack = load(Recipe.read("tiny-int8-native-svdcache", ["model.device=cpu"]))
    with torch.inference_mode():
        inside = fingerprint(stack.pipe.transformers)
    assert inside == fingerprint(stack.pipe.transformers)
