"""Idle: stages of a stack that stood in the way of nothing: they ran, and changed nothing that they are there for."""

from __future__ import annotations

from ditstack.measure.bench import Trial
from ditstack.recipe.axes import is_plain
from ditstack.recipe.recipe import Recipe

DENSE = 0.95
"""A sparse attention that makes a larger share of the products than this saves nothing."""
SKIPPED = 0.01
"""Of all multiply-accumulates: what a cache must save to have skipped anything."""


def idle(recipe: Recipe, made: Trial, baseline: Trial) -> list[str]:
    """A sentence for each stage that did nothing; empty where all of them acted.

    Args:
        made: what the recipe made.
        baseline: what its plain model made.
    """
    acting = [stage for stage in ("quantize", "attention", "cache") if not is_plain(recipe, stage)]
    found = []
    if "quantize" in acting and made.weight_bytes >= baseline.weight_bytes:
        found.append("idle: quantize rounded nothing; the weights take as many bytes as before")
    if "attention" in acting and made.attended is not None and made.attended > DENSE:
        found.append(f"idle: attention made {made.attended:.1%} of all products")
    if "cache" in acting and made.macs_ratio > 1 - SKIPPED:
        found.append("idle: cache skipped nothing; every step ran in full")
    return found
