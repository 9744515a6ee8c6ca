"""Plan: follow the facts through the stages of a recipe. Loads no weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

from ditstack.errors import Incompatible
from ditstack.recipe.adapter import Adapter
from ditstack.recipe.capabilities import Capability, machine
from ditstack.recipe.recipe import Recipe

_FORCED = ContextVar("forced", default=False)


@dataclass(frozen=True)
class Step:
    """One stage of a plan: the facts before and after it, and why it cannot stand, if it cannot."""

    stage: str
    method: str
    adapter: Adapter
    before: frozenset[Capability]
    after: frozenset[Capability]
    reasons: tuple[str, ...]


def plan(recipe: Recipe, device: str | None = None) -> list[Step]:
    """Every stage with the facts around it; stages that cannot stand say why, and the walk goes on."""
    device = device or recipe.model.device
    facts = machine(device)
    taken_by: dict[Capability, str] = {}
    steps = []
    for stage, adapter in recipe.stages():
        method = adapter.method
        # what a method brought itself is asked of the machine only now
        facts |= {fact for fact in adapter.needs - facts - taken_by.keys() if fact.holds(device)}
        lacking = sorted(adapter.needs - facts, key=lambda fact: fact.sentence)
        reasons = [_lacks(stage, method, fact, taken_by) for fact in lacking]
        reasons += [_not_installed(stage, method, adapter, name) for name in missing_packages(adapter)]
        after = (facts | adapter.gives) - adapter.drops
        taken_by.update(dict.fromkeys(facts - after, f"{stage} {method}"))
        steps.append(Step(stage, method, adapter, facts, after, tuple(reasons)))
        facts = after
    return [replace(step, reasons=(*step.reasons, *_lacks_later(step, facts, device))) for step in steps]


def check_plan(recipe: Recipe, device: str | None = None) -> None:
    """Refuse a stack that cannot stand.

    Args:
        device: where the model lies already; None asks the recipe.

    Raises:
        Incompatible: with the reasons of every stage at once.
    """
    reasons = [reason for step in plan(recipe, device) for reason in step.reasons]
    if reasons and not _FORCED.get():
        raise Incompatible(f"{recipe.name} cannot be stacked:", reasons)


@contextmanager
def forced() -> Iterator[None]:
    """Inside, nothing is refused: to see whether a refusal is true."""
    token = _FORCED.set(True)
    try:
        yield
    finally:
        _FORCED.reset(token)


def is_by_facts_alone(steps: list[Step]) -> bool:
    """Whether what refuses a plan is no package and nothing of the machine, so that forcing it can show something."""
    lacking = {fact for step in steps for fact in step.adapter.needs - step.before}
    lacking |= {fact for step in steps for fact in step.adapter.needs_later - steps[-1].after}
    return not any(fact.probe for fact in lacking) and not any(missing_packages(step.adapter) for step in steps)


def missing_packages(adapter: Adapter) -> list[str]:
    """Those of `adapter.packages` that are not installed here."""
    return [name for name in adapter.packages if importlib.util.find_spec(name) is None]


def _lacks_later(step: Step, last: frozenset[Capability], device: str) -> list[str]:
    """What no stage after it gives, nor the machine."""
    lacking = (fact for fact in step.adapter.needs_later - last if not fact.holds(device))
    return [_lacks(step.stage, step.method, fact, {}) for fact in sorted(lacking, key=lambda fact: fact.sentence)]


def _lacks(stage: str, method: str, fact: Capability, taken_by: dict[Capability, str]) -> str:
    why = f"; {taken_by[fact]} rules that out" if fact in taken_by else ""
    return f"{stage} {method} requires that {fact.sentence}{why}"


def _not_installed(stage: str, method: str, adapter: Adapter, name: str) -> str:
    target = f"'ditstack[{adapter.extra}]'" if adapter.extra else name
    return f"{stage} {method} needs the package {name}: pip install {target}"
