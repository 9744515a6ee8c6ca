"""The laws that every method inherits, as tests. A distribution of methods runs them with one import:

    from ditstack.testing.laws import *

The methods are those of the project in which the importing file lies, found by their files; nothing is listed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ditstack.errors import DitstackError
from ditstack.plugin import Capability
from ditstack.recipe.adapter import find
from ditstack.recipe.model import Model
from ditstack.recipe.plan import forced, plan
from ditstack.stack import apply
from ditstack.testing import tiny_pipelines as tiny
from ditstack.testing.capabilities import HELD, LACKING
from ditstack.testing.counting import block_runs, blocks_of
from ditstack.testing.standing import PROMPTS, STEPS, brought_by, recipe, run, sampled, stand

FAILURES = (
    DitstackError, RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError, ArithmeticError,
)  # fmt: skip
"""How a method may end that is forced onto a pipe which lacks what it needs."""
NEAR, NEAR_ROUNDED = 1e-3, 3e-2
"""Pictures are the same whose latents differ by no more, relatively; where activations are rounded, the second."""

__all__ = [
    "plain", "pytest_generate_tests", "test_law_1_at_its_neutral_setting_it_changes_nothing",
    "test_law_2_every_generation_starts_afresh", "test_law_3_what_it_declares_are_its_own_fields",
    "test_law_3_what_it_leaves_standing_is_so_afterwards", "test_law_3_what_it_needs_and_lacks_is_refused",
    "test_law_3_where_refused_it_would_fail_and_where_not_it_works",
    "test_law_4_an_item_alone_equals_the_item_in_a_batch",
    "test_law_5_it_worked", "test_law_6_off_is_exact_and_another_pipe_is_untouched", "test_law_7_nothing_is_silent",
]  # fmt: skip


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each law for each method that the project of the importing file brings."""
    if {"stage", "method"} <= {*metafunc.fixturenames}:
        found = brought_by(Path(str(getattr(metafunc.module, "__file__", ""))))
        metafunc.parametrize(("stage", "method"), found, ids=[f"{stage}-{method}" for stage, method in found])


@pytest.fixture(scope="module")
def plain() -> torch.Tensor:
    """The tiny pipeline's latents without any method."""
    return sampled(tiny.flux())


def test_law_1_at_its_neutral_setting_it_changes_nothing(stage: str, method: str, plain: torch.Tensor) -> None:
    neutral = find(stage, method).neutral
    if neutral is None:
        pytest.skip("it has no neutral setting: it rounds whatever it is given")
    torch.testing.assert_close(run(stand(stage, method, **neutral)), plain, rtol=1e-4, atol=1e-5)


def test_law_2_every_generation_starts_afresh(stage: str, method: str) -> None:
    stack = stand(stage, method)
    want = run(stack)

    def fail(_pipe: Any, step: int, *_: Any) -> dict[str, Any]:
        if step == STEPS // 2:
            raise RuntimeError("stop here")
        return {}

    with pytest.raises(RuntimeError, match="stop here"):
        run(stack, callback_on_step_end=fail)
    assert torch.equal(run(stack), want)


def test_law_3_what_it_needs_and_lacks_is_refused(stage: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "gives", frozenset())
    last = plan(recipe(stage, method))[-1]
    for one in last.adapter.needs - last.before:
        assert any(f"requires that {one.sentence}" in reason for reason in last.reasons)


@pytest.mark.parametrize("lacking", LACKING, ids=lambda one: one.sentence)
def test_law_3_where_refused_it_would_fail_and_where_not_it_works(
    stage: str, method: str, lacking: Capability, plain: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it names in `needs` is needed, and what it does not name is not."""
    lack, adapter = LACKING[lacking], recipe(stage, method).adapters[stage]
    if lacking not in adapter.needs and adapter.needs & lack.also:
        pytest.skip("such a pipe lacks also what it does need")
    stack = stand(stage, method, lack.whole())
    whole, compiled = run(stack), stack.report().compiled
    with lack.lacking(monkeypatch) as pipeline, forced():
        try:
            forced_on = apply(pipeline, stack.recipe)
            made = run(forced_on)
            gap = (made - whole).norm() / whole.norm()
            idle = torch.equal(made, plain) and not torch.equal(whole, plain)
            found = f"its latents are {gap:.1%} from those on a whole pipe" + (", and it did nothing" if idle else "")
            works = gap <= (NEAR_ROUNDED if adapter.rounds_activations else NEAR) and not idle
            works = works and bool(forced_on.report().compiled) == bool(compiled)
        except FAILURES as error:
            found, works = repr(error)[:500], False
    assert works != (lacking in adapter.needs), f"{found}; needs: {[one.sentence for one in adapter.needs]}"


def test_law_3_what_it_leaves_standing_is_so_afterwards(stage: str, method: str) -> None:
    stack = stand(stage, method)
    run(stack)
    (step,) = (one for one in plan(stack.recipe) if one.stage == stage)
    false = [one.sentence for one in HELD if one in step.after and not HELD[one](stack.pipe)]
    assert not false, "it neither drops these nor leaves them true"


def test_law_3_what_it_declares_are_its_own_fields(stage: str, method: str) -> None:
    kind = find(stage, method)
    declared = {*kind.incidental, *kind.unattended, *kind.sampler_from, *(kind.neutral or {}), *kind.trial}
    declared |= {one for one in (kind.axis_field, kind.factors_field) if one}
    adapter = recipe(stage, method).adapters[stage]
    declared |= {adapter.knob.field} if adapter.knob else set()
    declared |= {adapter.searched.schedule, adapter.searched.size} if adapter.searched else set()
    assert declared <= set(kind.model_fields)
    values = adapter.knob.settings(getattr(adapter, adapter.knob.field)) if adapter.knob else ()
    for value in values:
        assert adapter.knob
        recipe(stage, method, **{**kind.trial, adapter.knob.field: value})


def test_law_4_an_item_alone_equals_the_item_in_a_batch(stage: str, method: str) -> None:
    stack = stand(stage, method)
    if not stack.recipe.adapters[stage].per_item:
        pytest.skip("it says of itself that it decides for the whole batch")
    together, alone = run(stack), run(stack, PROMPTS[:1])
    gap, size = (together[:1] - alone).abs().max(), together.abs().max().clamp_min(1)
    assert gap <= (1e-3 if stack.recipe.adapters[stage].rounds_activations else 1e-5) * size


def test_law_5_it_worked(stage: str, method: str, plain: torch.Tensor) -> None:
    stack = stand(stage, method)
    with block_runs(stack.pipe) as ran:
        out = run(stack)
    assert torch.isfinite(out).all()
    if stage == "cache":
        kinds = stack.pipe.passes.steps
        assert sum(kinds.values()) == STEPS
        assert 0 < kinds["full"] < STEPS
        assert len(ran) >= 2 * kinds["full"] * blocks_of(stack.pipe)
        assert stack.report().macs_ratio < 1
    if find(stage, method).neutral != {}:
        assert not torch.equal(out, plain)


def test_law_6_off_is_exact_and_another_pipe_is_untouched(stage: str, method: str, plain: torch.Tensor) -> None:
    stack = stand(stage, method)
    run(stack)
    assert torch.equal(sampled(tiny.flux()), plain)
    if stage == "cache":
        with stack.off():
            off = run(stack)
        assert torch.equal(off, plain)
        assert not torch.equal(run(stack), plain)


def test_law_7_nothing_is_silent(stage: str, method: str, plain: torch.Tensor) -> None:
    """Where it made no difference at all, its report says so; and what the report says is said once."""
    stack = stand(stage, method)
    differs = not torch.equal(run(stack), plain)
    first = list(stack.report().notes)
    assert differs or first or find(stage, method).neutral == {}
    run(stack)
    assert stack.report().notes == first
    assert len({*first}) == len(first)
