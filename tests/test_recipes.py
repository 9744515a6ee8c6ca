"""The recipes on the shelf: each is read, planned and written back equal; the tiny ones run."""

import re

import pytest
import yaml

from ditstack import load
from ditstack.calibration.sampler.fit import SamplerWish
from ditstack.matrix.survey import GATE
from ditstack.recipe.adapter import STAGES
from ditstack.recipe.layers import shelf, shelf_names
from ditstack.recipe.plan import plan
from ditstack.recipe.recipe import Recipe

LIMIT, STEPS = 20, 5
SAID = ["a red circle in the center on a plain gray background", "a blue star in the top left on a pink background"]


@pytest.mark.parametrize("name", shelf_names())
def test_a_recipe_on_the_shelf_is_read_planned_and_written_back_equal(name: str) -> None:
    recipe = Recipe.read(name)
    assert Recipe.parse(yaml.safe_load(recipe.to_yaml()), recipe.name) == recipe
    assert [step.stage for step in plan(recipe)] == [stage for stage, _ in recipe.stages()]
    assert recipe.prompts
    text = (shelf() / f"{name}.yaml").read_text()
    assert text.count("\n") <= LIMIT
    assert text.startswith("# ")


@pytest.mark.parametrize("name", [name for name in shelf_names() if name.count("-") >= 3])
def test_the_name_of_a_recipe_says_its_stages(name: str) -> None:
    recipe = Recipe.read(name)
    model, quantize, attention, cache = name.split("-")[:4]
    method = {stage: type(adapter).__module__.rpartition(".")[2] for stage, adapter in recipe.stages()}
    kernels = getattr(recipe.adapters["attention"], "kernels", ())  # `auto` may take the kernel of the name
    assert attention in (method["attention"], *kernels)
    assert (method["model"], method.get("cache", "none")) == (model, cache)
    assert ("quantize" in method) == (quantize != "none")
    named = re.fullmatch(r"(\d+)(step|eval)", name.split("-")[-1])
    assert (named is not None) == ("distill" in method)
    assert named is None or int(named[1]) == recipe.sampler.steps


NUMBERS = {"second": 2, "three": 3, "four": 4, "seven": 7, "eight": 8}


def contradictions(comment: str, recipe: Recipe) -> list[str]:
    """What a recipe's comment says of its numbers and is not so once it is resolved."""
    cache, quantize = (recipe.adapters.get(stage) for stage in ("cache", "quantize"))
    text = comment.lower()
    said: list[tuple[str, object, object]] = []
    for word in re.findall(r"one full step in (\w+)|every (second) step", text):
        said.append(("interval", NUMBERS["".join(word)], getattr(cache, "interval", None)))
    for bits in re.findall(r"\b(\d)[- ]bits?\b", text):
        said.append(("bits", bits, bits if quantize and bits in f"{quantize.method} {quantize.model_dump()}" else None))
    for word in re.findall(r"\b(four|eight)(?: \w+)? steps\b|'s (four|eight) steps", text):
        said.append(("steps", NUMBERS["".join(word)], recipe.sampler.steps))
    for count in re.findall(r"(\d+) evaluations", text):
        said.append(("evaluations", int(count), recipe.sampler.steps))
    if "activations in fp8" in text:
        said.append(("scheme", True, str(getattr(quantize, "scheme", "")).startswith("fp8dq")))
    return [f"{what}: the comment says {wanted}, the recipe {found}" for what, wanted, found in said if wanted != found]


@pytest.mark.parametrize("name", shelf_names())
def test_the_comment_of_a_recipe_agrees_with_what_it_resolves_to(name: str) -> None:
    lines = (shelf() / f"{name}.yaml").read_text().splitlines()
    comment = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
    assert not contradictions(comment, Recipe.read(name))


def test_a_comment_that_says_other_numbers_is_noticed() -> None:
    recipe = Recipe.read("tiny-int8-native-svdcache")
    assert contradictions("weights in 4 bits, one full step in three", recipe) == [
        "interval: the comment says 3, the recipe 4",
        "bits: the comment says 4, the recipe None",
    ]


@pytest.mark.parametrize("name", [name for name in shelf_names() if not name.startswith("tiny")])
def test_what_torchao_rounds_for_a_gpu_is_compiled(name: str) -> None:
    """Uncompiled it is slower than bf16."""
    adapters = Recipe.read(name).adapters
    assert "compile" in adapters or getattr(adapters.get("quantize"), "method", "") != "torchao"


@pytest.mark.parametrize("name", [name for name in shelf_names() if name.startswith("tiny")])
def test_a_recipe_for_the_embedded_model_makes_a_picture(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SamplerWish, "reference_steps", 6)
    adapters = Recipe.read(name).adapters
    steps = next((one.schedule_steps for one in adapters.values() if one.schedule_steps), STEPS)
    quick = ["compile.backend=eager"] if "compile" in adapters else []
    if name.endswith("eval"):
        steps, quick = 2, [*quick, "distill.iterations=1", "distill.tries=1", "distill.evaluations=2"]
    stack = load(Recipe.read(name, [f"sampler.steps={steps}", f"calibration={SAID * 2}", *quick]))
    made = stack.sample(SAID[:1])
    assert made.images.shape == (1, 3, 64, 64)
    assert sum(made.steps.values()) == steps


def test_the_shelfs_gates_and_the_matrixs_name_the_low_end() -> None:
    gates = [GATE, *(Recipe.read(name).quality for name in shelf_names())]
    named = [gate.limits() for gate in gates if gate.limits()]
    assert len(named) >= 2
    assert all("psnr_p5_min" in one for one in named), "a mean of dB hides broken pictures"


def test_the_full_few_step_stack_acts_at_every_stage() -> None:
    stack = load("tiny-int8-sparse-svdcache-4step")
    made = stack.sample(SAID[:1])
    report = stack.report(made)
    assert [stage for stage in STAGES if stage in report.resolved] == list(STAGES[:5])
    assert (report.resolved["sampler"]["steps"], report.resolved["sampler"]["guidance"]) == (4, 1.0)
    assert made.steps == {"full": 2, "forecast": 2}
    assert any("the LoRA moves the transformer's output" in note for note in report.notes)
    assert Recipe.read("tiny-int8-sparse-svdcache-4step").plain().sampler.steps == 4
