"""Rows of one batch run differently, and each picture is the one that it would be alone; what they cost adds up."""

from collections.abc import Hashable, Sequence
from typing import Any

import pytest
import torch

import families
from ditstack import apply
from ditstack.assembly.sample import Account, Pictures, sample
from ditstack.errors import BadPipeline, Incompatible
from ditstack.pipeline.pipe import FULL, Pipe
from ditstack.pipeline.policy import COPIED, RowPolicy
from ditstack.pipeline.records import PassInputs
from ditstack.pipeline.rows import cut, put_together
from ditstack.recipe.adapter import find
from ditstack.recipe.recipe import Recipe
from ditstack.stack import Stack
from ditstack.testing import tiny_pipelines as tiny

STEPS = 6
CUT = [name for name, word in families.MODELS.items() if getattr(find("model", word), "cut_into_rows", False)]
PROMPTS = ["a", "a red circle", "a blue star", "b", "a green square", "c d", "one two", "e"]
RESTLESS = {1, 4, 6}
"""Of eight pictures, those that need further full steps."""


class Restless(RowPolicy):
    """Rows whose first noise is that of a restless picture run in full on every second step, the others on step 3."""

    def __init__(self, pipe: Pipe, noises: Sequence[torch.Tensor]) -> None:
        super().__init__(pipe.clock, pipe.unguided)
        self.noises = noises
        self.found: dict[Hashable, bool] = {}

    def rows(self, inputs: PassInputs) -> list[str]:
        for place, one in enumerate(inputs.hidden_states):
            key = (self.clock.branch, place)
            if key not in self.found:
                self.found[key] = any(torch.equal(one[..., :4], noise) for noise in self.noises)
        return super().rows(inputs)

    def decide(self, row: Hashable, unguided: bool, last: int) -> str:
        full = (2, 4) if self.found[row] else (3,)
        return FULL if self.clock.index in full else "forecast"

    def forget(self) -> None:
        super().forget()
        self.found.clear()


def stand(family: str) -> Stack:
    return families.stand(family, cache={"method": "svdcache", "interval": 3})


def made(stack: Stack, family: str, places: Sequence[int]) -> Pictures:
    extra = tiny._of_class(type(stack.pipeline).__name__, 1)
    extra.pop("true_cfg_scale", None)
    prompts = [str(100 + place) if family == "dit" else PROMPTS[place] for place in places]
    return sample(stack.pipe, prompts, [50 + place for place in places], stack.recipe.sampler, extra=extra)


def restless(stack: Stack, family: str) -> None:
    """From now on three of the eight pictures are restless, wherever they stand in a batch."""
    firsts: list[torch.Tensor] = []
    for place in sorted(RESTLESS):
        seen: list[Any] = []
        run = stack.pipe.clock.run

        def look(call: Any, module: Any, args: Any, kwargs: Any, run: Any = run, seen: list[Any] = seen) -> Any:
            seen.append((args[0] if args else kwargs["hidden_states"])[0, ..., :4].clone())
            return run(call, module, args, kwargs)

        stack.pipe.clock.run = look
        made(stack, family, [place])
        stack.pipe.clock.run = run
        firsts.append(seen[0])
    store = stack.pipe.caches[0]
    policy = stack.pipe.policy = Restless(stack.pipe, firsts)
    policy.on_forget.append(store.forget)  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("family", CUT)
def test_of_eight_pictures_three_need_more_full_steps_and_each_is_the_one_that_it_is_alone(family: str) -> None:
    stack = stand(family)
    restless(stack, family)
    together = made(stack, family, range(8))
    kinds = [one.steps for one in together.each]
    assert {place for place, one in enumerate(kinds) if one == kinds[1]} == RESTLESS
    assert kinds[1]["full"] > kinds[0]["full"]
    assert "full+forecast" in together.steps
    assert sum(one.macs for one in together.each) == together.macs
    assert together.each[1].macs > together.each[0].macs
    for place in (0, 1):
        alone = made(stack, family, [place])
        assert alone.steps == kinds[place]
        size = together.latents.abs().max().clamp_min(1)
        assert (alone.latents[0] - together.latents[place]).abs().max() <= 1e-5 * size
        assert abs(alone.macs - together.each[place].macs) <= 1e-3 * alone.macs
    assert 0 < stack.pipe.passes.macs_ratio < 1


@pytest.mark.parametrize("method", ["halves", "paced", "firstblock"])
def test_methods_that_tell_rows_apart_are_exact_at_their_neutral_setting_with_both_halves(method: str) -> None:
    neutral = find("cache", method).neutral
    assert neutral is not None
    base = Recipe.read("tiny", ["sampler.steps=4"])
    plain = apply(_pipeline(), base).sample(PROMPTS[:3])
    stack = apply(_pipeline(), base.with_(cache={"method": method, **neutral}))
    assert torch.allclose(stack.sample(PROMPTS[:3]).latents, plain.latents, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("halves", {"interval": 3, "every": 2}),
        ("halves", {"interval": 3, "every": 2, "difference": False, "guided_from": 0.2, "guided_to": 0.7}),
        ("paced", {"interval": 3, "tolerance": 0.08}),
        ("firstblock", {"threshold": 0.6}),
    ],
)
@pytest.mark.parametrize("family", ["tiny", "dit"])
def test_with_true_guidance_a_picture_alone_is_the_one_of_the_batch(
    family: str, method: str, fields: dict[str, Any]
) -> None:
    if (family, method) == ("dit", "firstblock"):
        fields = {"threshold": 3.0}  # random weights: its first block changes more
    stack = _guided(family, {"method": method, **fields})
    together = stack.sample(_prompts(family))
    share = stack.pipe.passes.macs_ratio
    alone = stack.sample(_prompts(family)[2:3], [stack.recipe.seed + 2])
    size = together.latents.abs().max().clamp_min(1)
    assert (together.latents[2] - alone.latents[0]).abs().max() <= 1e-5 * size
    assert together.each[2].steps == alone.steps
    assert sum(one.macs for one in together.each) == together.macs
    assert share < 1


def test_rows_that_decide_for_themselves_do_decide_differently() -> None:
    for cache in ({"method": "paced", "interval": 3, "tolerance": 0.08}, {"method": "firstblock", "threshold": 0.25}):
        each = _guided("tiny", cache).sample(_prompts("tiny")).each
        assert len({one.macs for one in each}) > 1, cache


@pytest.mark.parametrize("family", ["tiny", "dit"])
def test_the_unconditional_half_has_a_schedule_of_its_own_in_separate_and_in_batched_passes(family: str) -> None:
    stack = _guided(family, {"method": "halves", "interval": 2, "every": 2, "guided_to": 0.7})
    stack.sample(_prompts(family))
    ran: dict[bool, dict[str, set[int]]] = {True: {}, False: {}}
    for record in stack.pipe.passes.records:
        for row in record.members:
            half = record.branch[1] == "uncond" or (family == "dit" and row >= 4)  # pyright: ignore[reportIndexIssue]
            ran[half].setdefault(record.ran, set()).add(record.step)
    assert ran[False][FULL] == set(find("cache", "halves")(interval=2).full_steps(10, False))  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
    assert ran[True][FULL] == {step for step in sorted(ran[False][FULL])[::2] if step < 7}
    assert ran[True][COPIED] == {7, 8, 9}


@pytest.mark.parametrize("family", ["sd3", "pixart", "ltx"])
def test_where_the_unconditional_rows_come_first_they_are_the_ones_that_run_more_seldom(family: str) -> None:
    cache = {"method": "halves", "interval": 2, "every": 2, "guided_to": 0.7}
    sampler = {"steps": 10, "guidance": 3.0, **({"frames": 1, "size": "32x32"} if family == "ltx" else {})}
    data: dict[str, Any] = {"model": families.MODELS[family], "cache": cache, "sampler": sampler}
    stack = apply(tiny.FAMILIES[family](), data)
    made = stack.sample(PROMPTS[1:3])
    ran: dict[bool, dict[str, set[int]]] = {True: {}, False: {}}
    for record in stack.pipe.passes.records:
        for row in record.members:
            ran[row < 2].setdefault(record.ran, set()).add(record.step)
    assert ran[False][FULL] == set(find("cache", "halves")(interval=2).full_steps(10, False))  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
    assert ran[True][FULL] == {step for step in sorted(ran[False][FULL])[::2] if step < 7}
    assert ran[True][COPIED] == {7, 8, 9}
    alone = stack.sample(PROMPTS[2:3], [1])
    assert (made.latents[1] - alone.latents[0]).abs().max() <= 1e-5 * made.latents.abs().max().clamp_min(1)
    unguided = sample(stack.pipe, PROMPTS[1:3], [0, 1], stack.recipe.sampler.model_copy(update={"guidance": 1.0}))
    assert COPIED not in unguided.each[0].steps


def test_the_halves_difference_serves_where_the_unconditional_rows_come_first() -> None:
    data: dict[str, Any] = {"model": "pixart", "sampler": {"steps": 8, "guidance": 3.0}}
    plain = apply(tiny.pixart(), data).sample(PROMPTS[1:3])
    stack = apply(tiny.pixart(), {**data, "cache": {"method": "halves", "interval": 1, "every": 1}})
    assert torch.equal(stack.sample(PROMPTS[1:3]).latents, plain.latents)
    errors = []
    for difference in (True, False):
        cache = {"method": "halves", "interval": 1, "every": 2, "difference": difference}
        made = apply(tiny.pixart(), {**data, "cache": cache}).sample(PROMPTS[1:3])
        errors.append(float((made.latents - plain.latents).norm()))
    assert errors[0] < errors[1], "the difference to the conditional half is smoother than the half itself"


@pytest.mark.parametrize("family", ["sd3", "pixart", "ltx"])
def test_what_only_blocks_read_rests_with_them_by_row_too(family: str) -> None:
    caches = [{"method": "halves", "interval": 3, "every": 1}, {"method": "svdcache", "interval": 3}]
    by_row, whole = (families.stand(family, cache=cache) for cache in caches)
    for stack in (by_row, whole):
        made(stack, family, range(2))
    assert by_row.pipe.passes.by_row
    assert by_row.pipe.passes.macs == whole.pipe.passes.macs


def test_without_guidance_at_any_step_but_the_first_it_is_the_conditional_model() -> None:
    stack = _guided("tiny", {"method": "halves", "interval": 1, "every": 1, "guided_to": 0.0})
    off = stack.sample(_prompts("tiny")[:2])
    assert {record.step for record in stack.pipe.passes.records if record.ran == COPIED} == set(range(1, 10))
    assert off.each[0].macs < 0.6 * stack.pipe.passes.full_macs / 2


def test_a_family_that_cannot_be_cut_refuses_what_needs_it_and_firstblock_works_as_before() -> None:
    with pytest.raises(Incompatible, match="the transformer can run on some rows of its batch"):
        families.stand("qwen_image", cache={"method": "halves"})
    assert not families.stand("qwen_image", cache={"method": "firstblock"}).pipe.passes.by_row


def test_an_argument_whose_rows_cannot_be_told_is_refused() -> None:
    given = {"hidden_states": torch.zeros(4, 2, 3), "img_ids": torch.zeros(4, 3), "extra": [torch.zeros(4, 2, 3)]}
    with pytest.raises(BadPipeline, match="called with extra, whose rows cannot be told"):
        cut((), given, [], ["hidden_states"], [1], 4)
    del given["extra"]
    _, found = cut((), given, [], ["hidden_states"], [1, 3], 4)
    assert len(found["hidden_states"]) == 2
    assert len(found["img_ids"]) == 4, "positions have no rows, however many there are"


def test_answers_are_put_together_in_the_order_of_the_batch() -> None:
    whole = torch.arange(5.0)[:, None]
    parts = [([3, 0], (whole[[3, 0]],)), ([1, 2, 4], (whole[[1, 2, 4]],))]
    assert torch.equal(put_together(parts, 5)[0], whole)


def test_shares_of_rows_add_up_however_they_divide() -> None:
    stack = _guided("tiny", {"method": "paced", "interval": 3})
    each: list[Account] = stack.sample(_prompts("tiny")[:3]).each
    assert sum(one.macs for one in each) == stack.pipe.passes.macs


def _pipeline() -> Any:
    return Recipe.read("tiny").model.load()


def _guided(family: str, cache: dict[str, Any]) -> Stack:
    if family == "tiny":
        return apply(_pipeline(), Recipe.read("tiny", ["sampler.steps=10"]).with_(cache=cache))
    data = {"model": {"method": "dit", "device": "cpu"}, "cache": cache, "sampler": {"steps": 10, "guidance": 4.0}}
    return apply(tiny.FAMILIES["dit"](), Recipe.parse(data))


def _prompts(family: str) -> list[str]:
    return ["5", "17", "300", "12"] if family == "dit" else [*Recipe.read("tiny").prompts[:4]]
