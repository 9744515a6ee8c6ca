"""A pattern's policy follows every layer by itself in every guidance branch."""

from types import SimpleNamespace
from typing import Any

import torch

from ditstack.caching.patterns import LayerPolicy, Pattern

COLUMNS = {"attn": (True, False, True, False), "ff": (True, False, False, True)}


def passes(branches: list[str]) -> list[tuple[str, list[str], Any]]:
    """The kind, the full layers and what tells its cost, of a pass on each step, in the named branch."""
    clock: Any = SimpleNamespace(index=0, steps=4, branch="")
    policy = LayerPolicy(clock, {"attn": ["attn.q"], "ff": ["ff.0", "ff.2"]}, lambda steps: COLUMNS)
    found = []
    for clock.index, clock.branch in enumerate(branches):
        kind = policy.begin(None)  # pyright: ignore[reportArgumentType]
        full = sorted(name for name in ("attn.q", "ff.0") if policy.of_layer(name) == "full")
        found.append((kind, full, policy.variant))
        policy.end(kind)
    return found


def test_each_layer_runs_in_full_on_its_own_steps() -> None:
    assert passes(["a"] * 4) == [
        ("full", ["attn.q", "ff.0"], True),
        ("calibrated", [], frozenset()),
        ("calibrated", ["attn.q"], frozenset({"attn"})),
        ("calibrated", ["ff.0"], frozenset({"ff"})),
    ]


def test_a_layer_that_a_branch_has_missed_runs_in_full_when_the_branch_is_back() -> None:
    assert [full for _, full, _ in passes(["a", "b", "b", "a"])] == [
        ["attn.q", "ff.0"], ["attn.q", "ff.0"], ["attn.q"], ["attn.q", "ff.0"],
    ]  # fmt: skip


def test_a_pattern_is_what_its_tensors_say() -> None:
    pattern = Pattern(COLUMNS)
    known = Pattern.of({**pattern.tensors(), "ff.0.up": torch.zeros(2, 2)})
    assert known == pattern
    assert str(known) != str(Pattern({**COLUMNS, "ff": (True, False, False, False)}))
    assert Pattern.of({"ff.0.up": torch.zeros(2, 2)}) is None
