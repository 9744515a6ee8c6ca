"""halves, regressed: from some step on the conditional half runs alone, and what it tells of the other was fitted."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

import families
from ditstack import Recipe, RecipeError, apply
from ditstack.assembly.sample import sample
from ditstack.calibration.run import CalibrationRun
from ditstack.maths.predictors import Taylor
from ditstack.pipeline.pipe import FULL
from ditstack.recipe.adapter import find
from ditstack.stack import Stack
from ditstack_adapters.cache.halves import SCALARS, Products, sites_of

CUT = [name for name, word in families.MODELS.items() if getattr(find("model", word), "cut_into_rows", False)]
HELD = [1.0, 0.0, -1.0, 1.0]
"""The halves' difference stays what it was."""
ALONE = {"interval": 2, "every": 1, "guided_to": 0.5, "regressed": True}
BOTH = {0, 2}
"""The full steps of both halves, of six; on step 4 the conditional one runs alone."""


def standing(family: str, scalars: list[float] = HELD, steps: int = families.STEPS) -> Stack:
    stack = families.stand(family)
    halves: Any = find("cache", "halves")(**ALONE)
    halves.apply(stack.pipe)
    tensors = {f"{site}{SCALARS}": torch.tensor([scalars] * steps) for site in sites_of(stack.pipe)}
    assert halves.unfit(stack.pipe, tensors) == []
    halves.take(stack.pipe, tensors)
    return stack


def full_steps(stack: Stack, unconditional: bool) -> set[int]:
    policy: Any = stack.pipe.policy
    rows = [(record, row) for record in stack.pipe.passes.records if record.ran == FULL for row in record.members]
    return {record.step for record, row in rows if ((record.branch, row) in policy.seen) == unconditional}


def made(stack: Stack, family: str, items: slice = slice(None)) -> Any:
    """Pictures under guidance; the policy notes which rows were unconditional."""
    policy: Any = stack.pipe.policy
    policy.seen = set()
    decide = policy._unguided

    def look(inputs: Any) -> Any:
        found = decide(inputs)
        policy.seen |= {(policy.clock.branch, place) for place, one in enumerate(found) if one}
        return found

    policy._unguided = look
    try:
        return families.make(stack, family, items, guidance=3.0)
    finally:
        policy._unguided = decide


@pytest.mark.parametrize("family", CUT)
def test_a_picture_alone_is_the_one_of_the_batch_in_every_family_and_the_other_half_rests(family: str) -> None:
    stack = standing(family)
    together = made(stack, family)
    guided = bool(stack.pipe.policy.seen)  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
    assert guided == (not family.startswith("flux") and family not in ("hunyuan_video",)), "else this tests nothing"
    if guided and family in ("dit", "sd3", "pixart", "ltx"):
        assert full_steps(stack, unconditional=True) == BOTH
        assert full_steps(stack, unconditional=False) == {*BOTH, 4}
    assert sum(one.macs for one in together.each) == together.macs
    alone = made(stack, family, slice(1, 2))
    assert alone.steps == together.each[1].steps
    size = together.latents.abs().max().clamp_min(1)
    assert (alone.latents[0] - together.latents[1]).abs().max() <= 1e-5 * size


def tiny(steps: int = 10, **fields: Any) -> Stack:
    recipe = Recipe.read("tiny", [f"sampler.steps={steps}"])
    return apply(recipe.model.load(), recipe.with_(cache={"method": "halves", **fields}))


def test_what_is_fitted_brings_guidance_back_where_it_was_off() -> None:
    own = {"interval": 1, "every": 1, "guided_to": 0.9}
    stack = tiny(**own)
    prompts = list(stack.recipe.prompts[:2])
    off = stack.sample(prompts).latents
    halves: Any = find("cache", "halves").model_validate({**own, "regressed": True})
    base = apply(stack.recipe.model.load(), stack.recipe.with_(cache=None))
    halves.apply(base.pipe)
    run = CalibrationRun(base.pipe, ["a red circle", "a blue star"], base.recipe.sampler, print)
    tensors = halves.fit(base.pipe, run)
    assert halves.unfit(base.pipe, tensors) == []
    both = sample(base.pipe, prompts, [0, 1], base.recipe.sampler)
    halves.take(base.pipe, tensors)
    regressed = sample(base.pipe, prompts, [0, 1], base.recipe.sampler)
    assert regressed.macs < both.macs
    assert (regressed.latents - both.latents).norm() < 0.5 * (off - both.latents).norm()
    other = base.recipe.sampler.model_copy(update={"steps": 8})
    assert sample(base.pipe, prompts, [0, 1], other).steps == {"full": 8}, "scalars of ten steps serve no others"


def test_the_scalars_are_the_least_squares_of_what_was_kept() -> None:
    truth, generator = torch.tensor([0.5, 0.25, -0.75, 1.0]), torch.Generator().manual_seed(0)
    uncond, cond = {}, {}
    products = Products(SimpleNamespace(memories={}), lambda key: "c" if key == ("s", "u") else None, (0, 2, 5))  # pyright: ignore[reportArgumentType]
    for step in (0, 2, 5):
        cond[step], uncond[step] = (torch.randn(1, 3, 4, generator=generator) for _ in range(2))
        if step == 5:
            known = (uncond[2], uncond[0], cond[2], cond[5])
            uncond[5] = sum(a * one for a, one in zip(truth, known, strict=True))
        memories = {name: Taylor(1) for name in (("s", "u"), "c")}
        memories["s", "u"].keep(uncond[step], float(step))
        memories["c"].keep(cond[step], float(step))
        products.store.memories = memories  # pyright: ignore[reportAttributeAccessIssue]
        products("s", uncond[step])
    found = products.scalars(6)
    assert found.keys() == {f"s{SCALARS}"}
    assert torch.allclose(found[f"s{SCALARS}"][5].float(), truth, atol=1e-3)
    assert not found[f"s{SCALARS}"][:5].any()


def test_what_cannot_be_regressed_is_refused() -> None:
    with pytest.raises(
        RecipeError, match="regressed wants both halves on all full steps before guided_to: write every: 1"
    ):
        Recipe.read("tiny").with_(cache={"method": "halves", "regressed": True})
    stack = families.stand("dit")
    halves: Any = find("cache", "halves")(**ALONE)
    assert halves.unfit(stack.pipe, {"x": torch.zeros(1)}) == ["x: unknown", f"transformer{SCALARS}: missing"]
    (wrong,) = halves.unfit(stack.pipe, {f"transformer{SCALARS}": torch.zeros(6, 3)})
    assert wrong == f"transformer{SCALARS}: found the shape (6, 3); wanted 4 for each step"
