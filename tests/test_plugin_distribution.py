"""A distribution of methods, as CONTRIBUTING shows it: built, installed beside ditstack, tested, tuned and measured."""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import torch

from ditstack import apply
from ditstack.recipe.origin import UNPACKAGED
from ditstack.testing import tiny_pipelines as tiny
from ditstack.testing.standing import recipe
from ditstack.weights.dense import dense

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "plugin"
QUICK = ["--set", "model.device=cpu", "--set", "sampler.steps=4", "--set", "sampler.guidance=1.0"]


def test_contributing_quotes_the_example() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    shown = re.findall(r"```(?:python|yaml|toml)\n# examples/plugin/(\S+)\n(.*?)```", text, re.DOTALL)
    assert {name for name, _ in shown} == {
        "pyproject.toml", "ditstack_adapters/cache/drift.py", "tests/test_laws.py", "tiny-nibbles-native-drift.yaml",
    }  # fmt: skip
    for name, quoted in shown:
        assert quoted == (EXAMPLE / name).read_text(encoding="utf-8"), name


def told(*command: str | Path, cwd: Path, **environment: str) -> str:
    """What a command says on standard output; its last words where it fails."""
    known = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env={**known, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-6000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a virtual environment with both wheels; what they depend on is seen where it is installed."""
    folder = tmp_path_factory.mktemp("fresh")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    for source in (ROOT, EXAMPLE):
        told(*pip, "wheel", "--no-deps", "--wheel-dir", folder / "wheels", source, cwd=folder)
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    told(*pip, "--python", python, "install", "--no-deps", "--no-index", *(folder / "wheels").glob("*.whl"), cwd=folder)
    (own,) = (folder / "lib").glob("python*/site-packages")
    (own / "what_they_depend_on.pth").write_text(str(Path(torch.__file__).parents[1]))
    shutil.copytree(EXAMPLE, folder / "example")
    shutil.rmtree(folder / "example" / "ditstack_adapters")  # the wheel's are meant
    return folder


@pytest.mark.slow
def test_it_passes_the_laws_with_one_import(fresh: Path) -> None:
    out = told(fresh / "bin" / "python", "-m", "pytest", "-v", "--no-header", ".", cwd=fresh / "example")
    passed = re.findall(r"::(\w+)\[(\S+?)[-\]].* PASSED", out)
    assert {kind for _, kind in passed} >= {"cache", "quantize"}
    assert {f"law_{number}" for number in range(1, 8)} <= {law[5:10] for law, _ in passed}
    assert not re.search(r"svdcache|torchao", out), "the laws run for the methods of this distribution alone"


BY_WORK = """
import dataclasses
from ditstack.cli.app import main
from ditstack.measure.bench import Trial
from ditstack.tuning import tune

def by_work(*words, measured=tune.trial, **how):
    made = measured(*words, **{**how, "against": None})  # nor is any race run
    pictures = dataclasses.replace(made.pictures, seconds={"denoise": made.pictures.macs})
    return dataclasses.replace(made, pace=None, pictures=pictures)

tune.trial = by_work
main()
"""
"""The command line where a second is a multiply-accumulate, so that no clock decides what is fastest."""


@pytest.mark.slow
def test_it_is_tuned_by_the_knob_that_it_declares(fresh: Path) -> None:
    stack = ("tune", "--model", "tiny", "--methods", "quantize=none cache=drift", "--psnr-min", "5")
    more = ("--prompts", "2", "--out", "tuned.yaml", *QUICK)
    said = told(fresh / "bin" / "python", "-c", BY_WORK, *stack, *more, cwd=fresh, DITSTACK_HOME=str(fresh / "home"))
    assert re.search(r"the best by itself is drift drift 0\.[124]: ", said)
    code = (
        "from ditstack.recipe.recipe import Recipe; from ditstack.tuning.options import options;"
        "base = Recipe.read('tiny', ['sampler.steps=4']);"
        "print([one.changes['cache']['drift'] for one in options(base, {'cache': ['drift']})['cache']])"
    )
    assert told(fresh / "bin" / "python", "-c", code, cwd=fresh).strip() == "[0.1, 0.2, 0.4]"


@pytest.mark.slow
def test_it_appears_in_a_matrix_and_in_reports(fresh: Path) -> None:
    stack = ("ditstack", "matrix", "--model", "tiny", "--methods", "quantize=none,nibbles cache=none,drift")
    told(fresh / "bin" / "python", "-m", *stack, "--prompts", "2", "--out", "matrix", *QUICK, cwd=fresh)
    found = json.loads((fresh / "matrix" / "matrix.json").read_text())
    cells = {cell["name"]: cell for cell in found["cells"]}
    cells = {name: cell for name, cell in cells.items() if cell["status"] != "control"}
    assert set(cells) == {"none-none", "nibbles-none", "none-drift", "nibbles-drift"}
    assert all(cell["status"] in ("ok", "degraded") and not cell["contradiction"] for cell in cells.values())
    assert cells["nibbles-none"]["weight_bytes"] < cells["none-none"]["weight_bytes"] / 2
    assert cells["none-drift"]["macs_ratio"] < 1
    assert found["methods"]["cache drift"] == found["methods"]["quantize nibbles"] == "ditstack-example 0.1.0"
    code = (
        "from ditstack import load; stack = load('example/tiny-nibbles-native-drift.yaml');"
        "stack.sample(['a red circle']);"
        "print(stack.report().methods)"
    )
    said = told(fresh / "bin" / "python", "-c", code, cwd=fresh)
    assert "'quantize': 'ditstack-example 0.1.0'" in said
    assert "'cache': 'ditstack-example 0.1.0'" in said
    assert "'model': 'ditstack 0." in said


def test_the_example_stands_from_a_folder_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    try:
        stack = apply(tiny.flux(), recipe("cache", "drift").with_(quantize="nibbles", sampler={"steps": 4}))
        tiny.call(stack.pipeline, ["a red circle"], 4)
        assert stack.pipe.passes.steps["reused"] > 0
        assert stack.report().methods["cache"] == UNPACKAGED
        linear = stack.pipe.transformers["transformer"].get_submodule("transformer_blocks.0.attn.to_q")
        assert dense(linear).shape == linear.weight.shape
    finally:
        for name in [name for name in sys.modules if name.endswith((".cache.drift", ".quantize.nibbles"))]:
            del sys.modules[name]
