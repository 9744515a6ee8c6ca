"""Check: a recipe's quality gate, measured against its baseline, and remembered for this kind of machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from ditstack.assembly.comparison import single
from ditstack.calibration.calibrate import check_ready
from ditstack.errors import BadFile
from ditstack.files import home, is_there, read_text, write_atomically
from ditstack.maths.fidelity import paired
from ditstack.measure import metrics
from ditstack.measure.bench import Trial, trial
from ditstack.measure.controls import Beside, Controls, beside, to_choose_on
from ditstack.recipe.capabilities import describe_machine
from ditstack.recipe.model import Model
from ditstack.recipe.recipe import PLAIN_STAGES, Gate, Recipe
from ditstack.report import FILED, Estimate, versions

DROP = "agreement_drop"


class Verdict(BaseModel):
    """One line of a gate: what was wanted, what was found."""

    model_config = FILED

    gate: str
    """As in the recipe: "psnr_min"."""
    wanted: float
    found: Estimate

    @property
    def ok(self) -> bool:
        return self.short <= 0

    @property
    def short(self) -> float:
        """By how much the worse end of the interval misses; 0 or less where it does not."""
        if self.gate.endswith("_max"):
            return self.found.high - self.wanted
        return self.wanted - self.found.low

    def __str__(self) -> str:
        found = f"{self.found.mean:.4g} ({self.found.low:.4g} to {self.found.high:.4g})"
        end = "high" if self.gate.endswith("_max") else "low"
        verdict = "kept" if self.ok else f"missed by {self.short:.4g}"
        return f"{self.gate} {self.wanted:g}: found {found}; by the {end} end {verdict}"


class Outcome(BaseModel):
    """What a check found, as it is remembered."""

    model_config = FILED

    recipe: str
    machine: str
    versions: dict[str, str]
    prompts: int
    verdicts: list[Verdict]
    to_baseline: dict[str, Estimate]
    own: dict[str, Estimate]
    speedup: float
    """Of denoising: the median of interleaved pairs where both were raced, else of one pass each."""
    speedup_range: tuple[float, float] | None = None
    """Its 95 % interval, where there were pairs."""
    seconds: float
    """Of denoising one picture."""
    left_out: list[str]
    control: Beside | None = None
    """The plain model with as much work, where that was measured."""

    @property
    def ok(self) -> bool:
        return all(verdict.ok for verdict in self.verdicts)


@dataclass(frozen=True)
class Pair:
    """A stack and its baseline on the same prompts and seeds."""

    recipe: Recipe
    made: Trial
    baseline: Trial

    def outcome(self, gate: Gate) -> Outcome:
        """The gate's verdicts, and every figure that was taken on the way.

        Raises:
            BadFile: the gate asks for what cannot be measured here.
        """
        made, baseline = self.made.pictures, self.baseline.pictures
        usable, left_out = metrics.metrics_for(self.recipe.model.judge(), made.images.ndim == 5)
        to_baseline, own = metrics.measure(usable, made, baseline), metrics.measure(usable, made, None)
        pace = self.made.pace or single(self.baseline.seconds / self.made.seconds)
        found = {**to_baseline, "speedup": pace}
        if "agreement.all" in own:
            found[DROP] = _drop(self)
        return Outcome(
            recipe=self.recipe.name,
            machine=describe_machine(),
            versions=versions(),
            prompts=len(made.prompts),
            verdicts=verdicts(gate, found, left_out),
            to_baseline=to_baseline,
            own=own,
            speedup=pace.mean,
            speedup_range=(pace.low, pace.high) if self.made.pace else None,
            seconds=self.made.seconds,
            left_out=left_out,
        )


def check(recipe: Recipe, prompts: Sequence[str], tell: Callable[[str], None]) -> Outcome:
    """Measure a recipe's gate and remember the outcome.

    Raises:
        DitstackError: the recipe cannot stand here, or its gate cannot be measured.
    """
    if not recipe.quality.limits():
        raise BadFile(
            f"recipe {recipe.name} has no gate; write quality: {{psnr_min: 35}}, or --set quality.psnr_min=35"
        )
    check_ready(recipe)
    check_gate(recipe.quality, recipe.model)
    tell(f"{len(prompts)} pictures of the plain baseline")
    baseline = trial(recipe.plain(), prompts)
    tell(f"{len(prompts)} pictures of {recipe.name}")
    made = trial(recipe, prompts, against=recipe.plain())
    outcome = Pair(recipe, made, baseline).outcome(recipe.quality)
    tell("the same work without a cache, by the best of several solvers")
    outcome.control = beside(Controls(recipe, to_choose_on(recipe, prompts)), made, baseline)
    remember(recipe, outcome)
    return outcome


def remember(recipe: Recipe, outcome: Outcome) -> None:
    """Keep an outcome for later runs of the recipe."""
    write_atomically(file_of(recipe), outcome.model_dump_json(indent=1).encode())


def check_gate(gate: Gate, model: Model) -> None:
    """Refuse a gate on what nothing here can measure, before anything is loaded.

    Raises:
        BadFile: with what is missing.
    """
    judge = model.judge()
    usable, left_out = metrics.metrics_for(judge, video=model.fps != 0)
    names = {unit.name for one in usable for unit in one.units if one.against_baseline}
    for name in gate.limits():
        _require_measured(name, {*names, "speedup", *([] if judge is None else [DROP])}, left_out)


def verdicts(gate: Gate, found: dict[str, Estimate], left_out: list[str]) -> list[Verdict]:
    """One for each limit of a gate.

    Raises:
        BadFile: a limit is on what was not measured.
    """
    out = []
    for name, wanted in gate.limits().items():
        measure = _require_measured(name, found, left_out)
        out.append(Verdict(gate=name, wanted=wanted, found=found[measure]))
    return out


def _require_measured(limit: str, measured: Collection[str], left_out: list[str]) -> str:
    """The name of what a limit is on."""
    name = limit.removesuffix("_min").removesuffix("_max")
    if name not in measured:
        why = next((text for text in left_out if name in text.lower()), "this model brings nothing to measure it")
        raise BadFile(f"quality.{limit} cannot be measured here: {why}")
    return name


def unchecked(recipe: Recipe) -> str:
    """What a run must say of its recipe: it was never checked on this kind of machine, or it failed; else nothing."""
    if recipe.adapters.keys() <= set(PLAIN_STAGES):
        return ""
    path, advice = file_of(recipe), f"ditstack check {recipe.name}"
    never = f"the quality of {recipe.name} was never checked on {describe_machine()}: {advice}"
    if not is_there(path):
        return never
    try:
        outcome = Outcome.model_validate_json(read_text(path))
    except (BadFile, ValidationError):
        return f"{never} (what was remembered of a check, {path}, is torn)"
    missed = "; ".join(str(verdict) for verdict in outcome.verdicts if not verdict.ok)
    return f"{recipe.name} failed its last check on {describe_machine()}: {missed}" if missed else ""


def file_of(recipe: Recipe) -> Path:
    """Where the outcome is remembered: by the kind of machine, and by all of the recipe that decides a picture."""
    resolved = {key: value for key, value in recipe.resolved().items() if key not in ("prompts", "seed")}
    key = json.dumps([describe_machine(), resolved], sort_keys=True)
    return home() / "checks" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def _drop(pair: Pair) -> Estimate:
    """By how much the share of pictures that agree with their prompts fell, paired over prompts."""
    judge = pair.recipe.model.judge()
    assert judge is not None
    made, baseline = (
        [float(all(verdict.values())) for verdict in judge.agreement(one.pictures.images, one.pictures.prompts)]
        for one in (pair.made, pair.baseline)
    )
    mean, low, high = paired(baseline, made)
    return Estimate(mean=mean, low=low, high=high)
