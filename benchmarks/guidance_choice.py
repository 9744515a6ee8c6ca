"""Which full steps each half of guidance has, chosen on calibration prompts: what `rows.py` writes as chosen.

    PYTHONPATH=benchmarks nice -n 5 python benchmarks/guidance_choice.py dit --passes 20 --moves 50
    PYTHONPATH=benchmarks nice -n 5 python benchmarks/guidance_choice.py pixart --passes 20 --moves 40

Moves of single steps from the best of a few graded schedules; one is kept where the mean PSNR of sixteen pictures
grows. Both halves together take as many full passes as they began with. First with the same steps for both, which
is what a schedule alone gains, then with schedules of their own. What `rows.py` measures was found by a first
version of this, with the same moves in another order: a run may end at other schedules.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import torch

import guidance
from ditstack.maths import fidelity, schedule
from ditstack.stack import Stack, load
from guidance import Steps
from rows import FIT_SEED, FITTED_ON, MODELS, asked, made, prompts_of

PROMPTS, SEED = 16, 11
Both = tuple[Steps, Steps]
"""The full steps of the conditional half, and those of them on which the unconditional one runs too."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=list(MODELS))
    parser.add_argument("--passes", type=int, default=20, help="full passes of both halves together")
    parser.add_argument("--moves", type=int, default=50)
    wanted = parser.parse_args()
    trials = Trials(wanted.model)
    for apart in (False, True):
        best = chosen(trials, wanted.passes, wanted.moves, apart)
        print("guidance regressed" if apart else "both halves", best, f"{trials.score(best):.2f} dB", flush=True)


@dataclass
class Trials:
    """Schedules of both halves on one model's calibration prompts."""

    model: str
    known: dict[Both, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.base, _ = asked(self.model, 1)
        self.steps: int = self.base.sampler.steps
        self.prompts = prompts_of(self.model, PROMPTS, SEED)
        self.plain = made(load(self.base), self.prompts)["images"]
        self.record = guidance.recorded(self.base, prompts_of(self.model, FITTED_ON, FIT_SEED))
        self.stack: Stack = guidance.standing(self.base, (), (), {})

    def score(self, both: Both) -> float:
        """Mean PSNR in dB."""
        if both not in self.known:
            policy: Any = self.stack.pipe.policy
            policy.cond, policy.uncond = map(frozenset, both)
            guidance.Regressed.on(self.stack.pipe).coefficients = guidance.fitted(self.record, *both)
            self.known[both] = fmean(fidelity.psnr(made(self.stack, self.prompts)["images"], self.plain))
        return self.known[both]


def chosen(trials: Trials, passes: int, moves: int, apart: bool) -> Both:
    """The best schedules of so many passes."""
    rng, tried = random.Random(0), set[Both]()
    best = max(starts(trials.steps, passes, apart), key=trials.score)
    while len(tried) < moves:
        new = moved(best, trials.steps, rng, apart)
        if new is None or new in tried or not can_run(new):
            continue
        tried.add(new)
        best = max(best, new, key=trials.score)
    return best


def starts(steps: int, passes: int, apart: bool) -> Iterator[Both]:
    """Graded schedules; of halves apart also those on which the conditional one goes on alone at the end."""
    for cond in range(passes // 2, passes // 2 + (3 if apart else 1)):
        full, uncond = schedule.graded(steps, cond), passes - cond
        yield full, full[:uncond]
        if cond > uncond:
            both = schedule.graded(steps, uncond)
            rest = (steps - both[-1]) / (cond - uncond + 1)
            alone = tuple(both[-1] + round(rest * (place + 1)) for place in range(cond - uncond))
            yield (*both, *alone), both


def moved(both: Both, steps: int, rng: random.Random, apart: bool) -> Both | None:
    """One step elsewhere, or a pass of one half for a pass of the other; None where the move drawn is none."""
    cond, uncond, kind = set(both[0]), set(both[1]), rng.random()
    if not apart or kind < 0.6:
        old = rng.choice(sorted(cond - {0}))
        new = old + rng.choice([-3, -2, -1, 1, 2, 3])
        if new in cond or not 0 < new < steps:
            return None
        cond = cond - {old} | {new}
        uncond = uncond - {old} | {new} if old in uncond else uncond
    elif kind < 0.8:
        old, new = rng.choice(sorted(uncond - {0})), rng.choice(sorted(cond))
        if new in uncond:
            return None
        uncond = uncond - {old} | {new}
    elif kind < 0.9:
        alone = sorted(cond - uncond)
        if len(alone) < 2:
            return None
        dropped, joined = rng.sample(alone, 2)
        cond, uncond = cond - {dropped}, uncond | {joined}
    else:
        old, new = rng.choice(sorted(uncond - {0})), rng.randrange(1, steps)
        if new in cond:
            return None
        cond, uncond = cond | {new}, uncond - {old}
    return tuple(sorted(cond)), tuple(sorted(uncond))


def can_run(both: Both) -> bool:
    """Whether both halves have run twice before the conditional one runs alone."""
    cond, uncond = both
    return all(len([one for one in uncond if one < step]) >= 2 for step in cond if step not in uncond)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
