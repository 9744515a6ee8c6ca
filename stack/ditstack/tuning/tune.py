"""Tune: the fastest stack that keeps a gate on this machine, by successive halving.

Every option of every stage runs alone on two prompts. The best of each stage are then combined, and the combinations
run on more and more prompts, the slower half and those that miss the gate leaving at each round. The sampler takes part
as any cache does: fewer steps by several solvers, or by what the distill stage makes of the model, without a cache or
under the best one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from ditstack.calibration.calibrate import factors_file, wanting
from ditstack.errors import DitstackError
from ditstack.factors import Factors
from ditstack.files import is_there
from ditstack.measure.bench import PAIRS, Trial, trial
from ditstack.measure.check import Outcome, Pair, Verdict, check_gate
from ditstack.pipeline.samplers import SAMPLER
from ditstack.recipe.layers import shelf_names
from ditstack.recipe.recipe import Gate, Recipe
from ditstack.report import Estimate
from ditstack.tuning.kept import RUNS, Kept, KeptRun, conditions_of
from ditstack.tuning.options import DISTILL, Option, distilled, options, other_samplers

FIRST = 2
"""Prompts of the first round; each further one has twice as many."""
KEPT = {"quantize": 2, "attention": 1, "cache": 4}
"""How many of each stage go on from the first round, beside leaving the stage out."""
CONTROLS = DISTILLED = 2
FINALISTS = 3


@dataclass
class Run:
    """An option on some of the prompts."""

    option: Option
    prompts: int
    outcome: Outcome
    macs_ratio: float
    """Multiply-accumulates as a share of the plain model's with all its steps."""

    @property
    def speedup(self) -> float:
        """Against the plain model: the median of interleaved pairs."""
        return self.outcome.speedup

    @property
    def fits(self) -> bool:
        return self.outcome.ok

    def __str__(self) -> str:
        psnr, low = (self.outcome.to_baseline[name] for name in ("psnr", "psnr_p5"))
        missed = "; ".join(str(verdict) for verdict in self.outcome.verdicts if not verdict.ok)
        return (
            f"{self.option}: {self.speedup:.2f}x, {self.macs_ratio:.2f} of the MACs, "
            f"PSNR {psnr.mean:.1f} ({psnr.low:.1f} to {psnr.high:.1f}), 5th percentile {low.mean:.1f}"
            + (f"; {missed}" if missed else "")
        )


@dataclass
class Chosen:
    """What tuning ended with."""

    run: Run
    reasons: list[str]


@dataclass
class Tuner:
    """The search for one base recipe and gate.

    Attributes:
        max_memory: bytes that a stack may take at most; 0 for no limit.
        tell: told in a sentence what is being done.
        notes: the file that holds what was measured, so that a killed tuning goes on where it was; None keeps nothing.
    """

    base: Recipe
    gate: Gate
    prompts: list[str]
    axes: dict[str, list[str]]
    max_memory: int
    tell: Callable[[str], None]
    notes: Path | None = None
    tried: dict[str, Run] = field(default_factory=dict)
    """The last run of every option, by its name."""
    _baselines: dict[int, Trial] = field(default_factory=dict)
    _kept: Kept[KeptRun] = field(default_factory=lambda: Kept(RUNS))

    def choose(self) -> Chosen | None:
        """The fastest stack that keeps the gate; None where nothing faster than the plain model does.

        Raises:
            BadFile: nothing here can measure what the gate is on, or `notes` is not a file of ours.
            RecipeError: a word means nothing at its stage.
        """
        check_gate(self.gate, self.base.model)
        options(self.base, self.axes)
        distilled(self.base, self.axes.get(DISTILL, []))
        RUNS.read(self.notes)
        plain = self._baseline(FIRST).pictures.images
        self._kept = Kept(RUNS, self.notes, conditions_of(self.base, self.prompts, self.max_memory, plain), self.tell)
        runs = self._screen()
        count = FIRST
        while runs and count < len(self.prompts):
            count = min(2 * count, len(self.prompts))
            runs = [run for option in _halved(runs) if (run := self._run(option, count)) is not None]
        good = sorted((run for run in runs if run.fits and run.speedup > 1), key=lambda run: -run.speedup)
        return Chosen(good[0], self._reasons(good)) if good else None

    def nearest(self) -> str:
        """Of what was tried, the stack that came nearest to the gate; for the sentence that it is out of reach."""
        faster = [run for run in self.tried.values() if run.speedup > 1]
        return str(min(faster, key=_miss)) if faster else "nothing that was tried is faster than the plain model"

    def _screen(self) -> list[Run]:
        """Every option alone; then the best of each stage together."""
        alone = {stage: self._round(found, FIRST) for stage, found in options(self.base, self.axes).items()}
        words = self.axes.get(SAMPLER, [])
        found = self._round(other_samplers(self.base, words, self._baseline(FIRST).flow), FIRST)
        samplers = [run.option for run in (found if words else _best(found)[:CONTROLS])]
        kept = {stage: [run.option for run in self._worth(stage, runs)] for stage, runs in alone.items()}
        caches = [Option(), *kept["cache"]]
        under = caches if words else caches[:2]  # over another sampler the best cache alone, unless that is asked for
        found = self._round(distilled(self.base, self.axes.get(DISTILL, [])), FIRST)
        samplers += [run.option for run in _best([run for run in found if run.speedup > 1])[:DISTILLED]]
        last = [*caches, *(cache | sampler for sampler in samplers for cache in under)]
        pairs = product([Option(), *kept["quantize"]], [Option(), *kept["attention"]], last)
        return self._round([a | b | c for a, b, c in pairs if a.changes or b.changes or c.changes], FIRST)

    def _worth(self, stage: str, runs: list[Run]) -> list[Run]:
        """Those of one stage that go on: faster alone, or lighter where memory is short."""
        useful = [run for run in runs if run.speedup > 1 or (self.max_memory and stage == "quantize")]
        return _best(useful)[: KEPT[stage]]

    def _round(self, found: list[Option], count: int) -> list[Run]:
        return [run for option in found if (run := self._run(option, count)) is not None]

    def _run(self, option: Option, count: int) -> Run | None:
        """Measure an option, unless that was done before; None where it cannot be built after all."""
        known = self.tried.get(str(option))
        if known is not None and known.prompts >= count:
            return known
        key = f"{count} prompts: {option}"
        kept = self._kept.known.get(key)
        if kept is None:
            self.tell(key)
            kept = self._measured(option, count)
            if kept is None:
                return None
            self._kept.add(key, kept)
        self.tried[str(option)] = Run(option, count, kept.outcome, kept.macs_ratio)
        return self.tried[str(option)]

    def _measured(self, option: Option, count: int) -> KeptRun | None:
        baseline = self._baseline(count)
        try:
            recipe = option.recipe(self.base)
            pairs = min(PAIRS, max(FIRST, count))
            plain = self.base.plain()
            made = trial(recipe, self.prompts[:count], against=plain, pairs=pairs, tell=self.tell, bar=self._fitting)
        except DitstackError:
            return None
        outcome = Pair(recipe, made, baseline).outcome(self.gate)
        if self.max_memory:
            outcome.verdicts.append(_memory(made, self.max_memory))
        return KeptRun(outcome=outcome, macs_ratio=made.pictures.macs / max(1, baseline.pictures.macs))

    def _fitting(self, part: str, done: int, count: int) -> None:
        """Tell how far what an option must fit first has come, at every quarter."""
        if 4 * done // count > 4 * (done - 1) // count:
            self.tell(f"  {part}: {done} of {count}")

    def finish(self) -> None:
        """Its outcome was written or said: what was measured on the way is kept no longer."""
        self._kept.drop()

    def _baseline(self, count: int) -> Trial:
        if count not in self._baselines:
            self._baselines[count] = trial(self.base.plain(), self.prompts[:count])
        return self._baselines[count]

    def _reasons(self, good: list[Run]) -> list[str]:
        """Why this one: what came next, what each stage brings alone, and where caches stand beside other samplers."""
        chosen = good[0]
        lines = [f"next: {run}" for run in good[1:FINALISTS]]
        for stage in KEPT:
            alone = [run for run in self.tried.values() if run.option.changes.keys() == {stage}]
            if alone and stage not in chosen.option.changes:
                lines.append(f"no {stage}: the best by itself is {_best(alone)[0]}")
        return lines + self._samplers(chosen)

    def _samplers(self, chosen: Run) -> list[str]:
        alone = [run for run in self.tried.values() if run.option.changes.keys() == {SAMPLER} and run.fits]
        caches = [run for run in self.tried.values() if run.option.changes.keys() == {"cache"} and run.fits]
        own = chosen.option.changes
        if SAMPLER in own and "cache" not in own:
            best = f"the best is {_best(caches)[0]}" if caches else "none keeps the gate"
            sampler = Option({SAMPLER: own[SAMPLER]})
            return [f"no cache: {sampler} without one are faster at this gate; of the caches {best}"]
        if "cache" not in own:
            return []
        if alone:
            return [f"beside it, another sampler without a cache: {_best(alone)[0]}"]
        return ["no sampler without a cache keeps the gate"]


def written(choice: Chosen, base: Recipe, extends: str) -> str:
    """The recipe as a file: where it differs from what it extends, its gate, and in its head what was measured."""
    found, outcome = choice.run, choice.run.outcome
    head = [f"Tuned on {outcome.machine}, {outcome.prompts} prompts: {found.speedup:.2f}x the plain baseline."]
    return file_of(found.option.recipe(base), found.option.changes, extends, [*head, *map(str, outcome.verdicts)])


def hand_over(tried: Recipe, written: Recipe) -> None:
    """Let the recipe that is written serve with the factors that were fitted while it was tried, not fit them anew."""
    source, target = factors_file(tried), factors_file(written)
    if wanting(written) and source != target and is_there(source):
        Factors.load(source).save(target)


def file_of(recipe: Recipe, own: Mapping[str, Any], extends: str, head: Sequence[str]) -> str:
    """A recipe as a file that extends another one.

    Args:
        own: the stages that differ, as they are to be written.
        head: sentences to stand before it.
    """
    before, after = Recipe.read(extends).resolved(), recipe.resolved()
    data: dict[str, Any] = {"extends": extends if extends in shelf_names() else str(Path(extends).resolve())}
    for key in [*before, *(key for key in after if key not in before)]:
        if key not in after:
            data[key] = "none"
        elif after[key] != before.get(key):
            data[key] = _differing(before.get(key, {}), after[key]) if key == SAMPLER else own.get(key) or after[key]
    if Recipe.parse(data) != recipe:  # layers cannot take a setting of a scheduler away
        data = after
    told = [f"# {sentence}" for sentence in head]
    return "\n".join([*told, yaml.safe_dump(data, sort_keys=False, default_flow_style=None)])


def _differing(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The fields to write over others; what is there no longer is written as null."""
    changed = {key: value for key, value in after.items() if before.get(key) != value}
    return {**dict.fromkeys(key for key in before if key not in after), **changed}


def _halved(runs: list[Run]) -> list[Option]:
    """The faster half of those that keep the gate."""
    best = _best([run for run in runs if run.fits])
    return [run.option for run in best[: max(FINALISTS, math.ceil(len(best) / 2))]]


def _best(runs: list[Run]) -> list[Run]:
    """Those that keep the gate first, the fastest first; the others by how far they miss."""
    return sorted(runs, key=lambda run: (not run.fits, 0.0 if run.fits else _miss(run), -run.speedup))


def _miss(run: Run) -> float:
    """By how much a run misses its gate, as a share of what was wanted, added up."""
    return sum(max(0.0, verdict.short) / max(abs(verdict.wanted), 1e-9) for verdict in run.outcome.verdicts)


def _memory(made: Trial, limit: int) -> Verdict:
    taken = float(made.peak_memory)
    return Verdict(gate="memory_max", wanted=float(limit), found=Estimate(mean=taken, low=taken, high=taken))
