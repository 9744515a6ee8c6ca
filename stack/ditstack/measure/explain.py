"""Explain: what each stage of a recipe costs and brings, by a ladder that adds one stage at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ditstack.calibration.calibrate import check_ready, default_file, factors_file, wanting
from ditstack.calibration.conditions import TENSORS
from ditstack.factors import Factors, prefix
from ditstack.files import at_home_in
from ditstack.maths.fidelity import relative_l2
from ditstack.measure.bench import Trial, trial
from ditstack.measure.check import Outcome, Pair
from ditstack.measure.controls import Controls, beside, to_choose_on
from ditstack.measure.metrics import estimate
from ditstack.recipe.recipe import PLAIN_STAGES, Gate, Recipe
from ditstack.report import Estimate


@dataclass(frozen=True)
class Rung:
    """A recipe up to and with one stage, on the same prompts and seeds as the others.

    Attributes:
        outcome: against the unaccelerated baseline, the lowest rung.
        faster: of denoising, against the rung below; both were raced against the baseline.
        added_error: relative L2 of the final latents to the baseline, less that of the rung below, paired.
        notes: what its report says that those below do not, such as which attention kernel was fastest.
    """

    title: str
    made: Trial
    outcome: Outcome
    faster: float
    added_error: Estimate
    notes: tuple[str, ...] = ()


def ladder(recipe: Recipe, prompts: list[str], tell: Callable[[str], None]) -> list[Rung]:
    """The baseline, then each accelerating stage on top of those before it, in the one order; what is fitted to all
    others comes last.

    Raises:
        DitstackError: a rung cannot stand.
    """
    check_ready(recipe)
    plan = _rungs(recipe)
    trials = _trials(plan, recipe, prompts, tell)
    baseline, below, error, rungs = trials[0], 1.0, [0.0] * len(prompts), []
    for (title, rung), made in zip(plan, trials, strict=True):
        now = relative_l2(made.pictures.latents, baseline.pictures.latents)
        added = estimate([a - b for a, b in zip(now, error, strict=True)])
        outcome = Pair(rung, made, baseline).outcome(Gate())
        known = {note for one in rungs for note in one.made.notes}
        notes = tuple(note for note in made.notes if note not in known)
        rungs.append(Rung(title, made, outcome, outcome.speedup / below, added, notes))
        below, error = outcome.speedup, now
    tell("the same work without a cache, by the best of several solvers")
    rungs[-1].outcome.control = beside(Controls(recipe, to_choose_on(recipe, prompts)), rungs[-1].made, baseline)
    return rungs


def _rungs(recipe: Recipe) -> list[tuple[str, Recipe]]:
    """The baseline, and then recipes of more and more stages."""
    found = [("plain baseline", recipe.plain())]
    added = [stage for stage in recipe.adapters if stage not in PLAIN_STAGES]
    added.sort(key=lambda stage: recipe.adapters[stage].fits_last)
    for count, stage in enumerate(added, 1):
        rung = recipe.with_(f"{recipe.name} to {stage}", **dict.fromkeys(added[count:]))
        found.append((f"+ {stage} {recipe.adapters[stage].method}", rung))
    return found


def _trials(
    plan: list[tuple[str, Recipe]], recipe: Recipe, prompts: list[str], tell: Callable[[str], None]
) -> list[Trial]:
    """What each rung makes; all but the baseline are raced against it.

    Where stages are fitted the whole recipe is made before the others: what may be fitted on first use is then fitted
    for all of them, and stale factors are refused before anything else is sampled.
    """
    (bottom, baseline), top, whole = plan[0], plan[-1][0], Factors({}, {})
    made: dict[str, Trial] = {}
    if wanting(recipe):
        tell(top)
        made[top] = trial(recipe, prompts, against=baseline, tell=tell)
        whole = Factors.load(factors_file(recipe))
    for title, rung in plan:
        if title not in made:
            tell(title)
            with _served(rung, recipe, whole) as serving:
                made[title] = trial(serving, prompts, against=None if title == bottom else baseline)
    return [made[title] for title, _ in plan]


@contextmanager
def _served(rung: Recipe, recipe: Recipe, whole: Factors) -> Iterator[Recipe]:
    """Inside, a rung that has the whole recipe's factors, as far as they are for its stages."""
    fitted = wanting(rung)
    if not fitted:
        yield rung
        return
    gone = recipe.adapters.keys() - rung.adapters.keys()
    tensors = {prefix(stage) + name: one for stage, _ in fitted for name, one in whole.of(stage).items()}
    stated = {name: one for name, one in whole.conditions.items() if name not in {*gone, TENSORS}}
    with tempfile.TemporaryDirectory() as folder, at_home_in(Path(folder)):
        file = default_file(rung)
        Factors(tensors, stated).save(file)
        fields = {stage: {one.factors_field: str(file)} for stage, one in fitted if one.factors_field}
        yield rung.with_(None, **fields)


def text(rungs: list[Rung]) -> str:
    """The ladder for people, a line for each rung."""
    lines = []
    for rung in rungs:
        psnr, made, error = rung.outcome.to_baseline["psnr"], rung.made, rung.added_error
        cost = (
            f"adds {error.mean:.4f} ({error.low:.4f} to {error.high:.4f}) to the relative L2 error; "
            f"PSNR to the baseline {psnr.mean:.1f} dB ({psnr.low:.1f} to {psnr.high:.1f})"
        )
        between = "" if (ends := rung.outcome.speedup_range) is None else f" ({ends[0]:.2f} to {ends[1]:.2f})"
        lines.append(
            f"{rung.title}: {rung.faster:.2f}x, {rung.outcome.speedup:.2f}x{between} so far "
            f"({made.seconds:.3f} s a picture); "
            f"{made.macs_ratio:.2f} of the MACs; weights {made.weight_bytes / 1e6:.1f} MB"
            + (f"; {cost}" if lines else "")
        )
        lines += [f"    {note}" for note in rung.notes]
    if (control := rungs[-1].outcome.control) is not None:
        lines.append(str(control))
    return "\n".join(lines)
