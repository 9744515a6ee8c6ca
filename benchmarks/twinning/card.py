"""The model card of a twin: what is written of it in `cards/`, with what its run and its scores say."""

from __future__ import annotations

import textwrap
from pathlib import Path
from string import Template
from typing import Any

from twinning.train import ADAM_RATE, AVERAGE, DECAY
from twinning.twin import Twin

TEXTS = Path(__file__).parent / "cards"
GOAL = 0.8  # agreement that a twin is meant to reach


def card(twin: Twin, facts: dict[str, Any], scores: list[dict[str, Any]]) -> str:
    """README.md."""
    text = Template((TEXTS / f"{twin.name}.md").read_text())
    said = f"{table(scores)}\n\n{verdict(scores)}" if scores else "Not scored yet."
    return text.substitute(training=training(twin, facts), scores=said)


def training(twin: Twin, facts: dict[str, Any]) -> str:
    """What was trained, on how much, and how."""
    parts = ", ".join(f"{name} {number / 1e6:.2f} M" for name, number in facts["parameters"].items() if number)
    text = (
        f"`benchmarks/twinning/train.py {twin.name}`, one thread of a CPU, bf16 autocast:"
        f" **{facts['samples']:,} samples** in {facts['steps']:,} steps,"
        f" {facts['trained'] / 60:.0f} minutes, seed {facts['seed']}."
        f" Muon ({twin.muon_rate}) for the blocks' matrices, AdamW ({ADAM_RATE}) for all else; weights averaged with"
        f" decay {AVERAGE}; the learning rate falls to 0 over the last {DECAY:.0%} of the time. The schedule follows"
        f" the clock, so a second run gives other weights of the same kind. Parameters: {parts}."
    )
    return textwrap.fill(text, 116, break_long_words=False, break_on_hyphens=False)


def table(scores: list[dict[str, Any]]) -> str:
    """One row a setting, in percent."""
    names = list(scores[0]["agree"])
    rows = [["steps", "guidance", *names, "prompts exchanged"], ["---"] * (len(names) + 3)]
    for score in scores:
        shares = [f"{100 * score['agree'][name]:.1f}" for name in names]
        rows.append([str(score["steps"]), f"{score['guidance']:g}", *shares, f"{100 * score['shuffled']:.1f}"])
    count = scores[0]["prompts"]
    head = (
        "Percent of what it paints that agree with the prompt by the checker:"
        f" {count} prompts, one picture or video each,\n{scores[0]['precision']}, seeds from {scores[0]['seed']};"
        f' "all" has a standard error of up to {50 / count**0.5:.1f} points.\n\n'
    )
    return head + "\n".join(f"| {' | '.join(row)} |" for row in rows)


def verdict(scores: list[dict[str, Any]]) -> str:
    """How far the best setting is from what a twin is meant to reach."""
    best = max(scores, key=lambda score: score["agree"]["all"])
    reached, where = 100 * best["agree"]["all"], f"{best['steps']} steps, guidance {best['guidance']:g}"
    if reached >= 100 * GOAL:
        return f"It was meant to reach {GOAL:.0%}; its best is {reached:.1f} % ({where})."
    return (
        f"It was meant to reach {GOAL:.0%} and **falls {100 * GOAL - reached:.1f} points short**: its best is"
        f" {reached:.1f} % ({where}).\nTrust its distances to the plain pipeline's pictures; its agreement separates"
        " little."
    )
