"""Search: it stays within its budget, a killed one goes on, and what it writes is a recipe."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ditstack.errors import BadFile, BadPipeline
from ditstack.maths.multistep import Method
from ditstack.maths.schedule import spreads
from ditstack.recipe.recipe import Recipe
from ditstack.tuning import evaluation
from ditstack.tuning import search as searching
from ditstack.tuning.evaluation import Candidate, ScheduleEvaluation, over, with_schedule
from ditstack.tuning.search import Search, spelt
from ditstack_adapters.distill.solver import FittedSolver

PROMPTS = [f"a {colour} {shape}" for colour in ("red", "blue", "green") for shape in ("circle", "star")]
STEPS = 7


class Scored(ScheduleEvaluation):
    """A cached run that is known beforehand: late steps are worth most."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.size, self.ran = recipe, 0.125, 0
        self.calibration: Any = type("Prompts", (), {"prompts": PROMPTS})

    def scores(self, candidate: Candidate, places: range) -> list[float]:
        self.ran += 1
        worth = {"F": 3.0, "C": 1.0, "S": 0.0, "R": -0.5}
        return [sum(worth[one] * (1 + at) for at, one in enumerate(candidate.letters)) for _ in places]

    def shares(self, size: float) -> dict[str, float]:
        return {"F": 1.0, "C": 0.25, "S": 0.0, "R": 0.0}

    def refit(self, candidate: Candidate, prompts: int) -> None:
        pass


def recipe(**cache: Any) -> Recipe:
    fields = {"method": "mixed", "schedule": "FS...", **cache}
    return Recipe.parse({"model": {"method": "tiny"}, "sampler": {"steps": STEPS, "size": "64x64"}, "cache": fields})


def test_it_finds_better_schedules_within_its_budget() -> None:
    trials = Scored(recipe())
    found = Search(trials, 3 / 7, [0.125], 60).run()
    assert trials.cost(found.best) <= 3 / 7 * 1.03
    assert found.best.letters[0] == "F"
    assert found.gain[0] > 0
    assert found.best.letters.count("F") + found.best.letters.count("C") / 4 > 2.7
    assert Recipe.parse(found.recipe.resolved()).resolved()["cache"]["schedule"] == found.best.letters


def test_it_starts_from_what_a_fitted_schedule_of_svdcache_starts_from() -> None:
    starts = {one.letters for one in Search(Scored(recipe()), 3 / 7, [0.125], 0).starts()}
    assert {spelt(full, STEPS, 0.125).letters for full in spreads(STEPS, 3)} <= starts


def test_a_candidate_that_loses_on_the_first_prompts_runs_on_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "BATCH", 2)
    trials = Scored(recipe())
    search = Search(trials, 3 / 7, [0.125], 1)
    good, bad = Candidate("FSSSSFF", 0.125), Candidate("FFFSSSS", 0.125)
    trials.ran = 0
    assert not search.promising(bad, good)
    assert trials.ran == 2


def test_a_killed_search_goes_on_and_ends_where_it_would_have(tmp_path: Path) -> None:
    started = ScheduleEvaluation(recipe(rank=0), PROMPTS, tmp_path / "notes")

    def stop(done: int, count: int, score: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Search(started, 0.5, [0], 2).run(stop)
    noted = ScheduleEvaluation(recipe(rank=0), PROMPTS, tmp_path / "notes")
    assert noted.notes.known == started.notes.known
    with pytest.raises(KeyboardInterrupt):
        Search(noted, 0.5, [0], 2).run(stop)
    assert noted.pipe.clock.generation == 0  # nothing ran twice
    assert ScheduleEvaluation(recipe(rank=8), PROMPTS, tmp_path / "notes").notes.known == {}


def test_steps_cost_what_was_measured_on_a_schedule_with_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = ScheduleEvaluation(recipe(rank=4), PROMPTS[:2], timed=True)
    took = {"full": 4, "calibrated": 3, "forecast": 1}
    monkeypatch.setattr(evaluation, "now", lambda: sum(took[kind] for kind in timed.pipe.passes.by_step.values()))
    assert timed.shares(4) == {"F": 1, "C": 3 / 4, "S": 1 / 4, "R": 1 / 4}


def test_another_sampler_aims_at_the_recipes_own_output_and_costs_a_share_of_it() -> None:
    own = recipe(schedule="FSSFSSS", rank=0)
    other = over(own, "unipc-3")
    assert (other.sampler.scheduler, other.sampler.steps) == ("UniPCMultistepScheduler", 3)
    assert other.resolved()["cache"]["schedule"] == "F...", "letters for seven steps fit no three"
    trials = ScheduleEvaluation(other, PROMPTS[:2], beside=own)
    every = Candidate("FFF", 0)
    assert trials.cost(every) == pytest.approx(3 / STEPS)
    assert max(trials.scores(every, range(2))) < 60, "three steps are not seven"
    assert min(ScheduleEvaluation(other, PROMPTS[:2]).scores(every, range(2))) > 100


def test_a_schedule_is_searched_over_the_fitted_sampler_that_it_will_run_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DITSTACK_HOME", str(tmp_path))
    sigmas = torch.tensor([1.0, 0.9, 0.4, 0.0])
    fitted = Method(1000 * sigmas[:-1], sigmas, torch.ones(3, 1)).tensors()
    monkeypatch.setattr(FittedSolver, "fit", lambda *_: fitted)
    data: dict[str, Any] = {"model": {"method": "tiny"}, "sampler": {"size": "64x64"}, "calibration": PROMPTS[:4]}
    data |= {
        "distill": {"method": "solver", "evaluations": 3, "calibrate": "auto"},
        "cache": {"method": "mixed", "schedule": "FSF", "rank": 0},
    }
    trials = ScheduleEvaluation(Recipe.parse(data), PROMPTS[:2])
    trials.follow(Candidate("FSF", 0))
    trials.calibration.latents(range(1))
    assert trials.pipe.pipeline.scheduler.timesteps.tolist() == pytest.approx([1000, 900, 400])
    with pytest.raises(BadFile, match="there is no factors file"):
        ScheduleEvaluation(Recipe.parse({**data, "distill": {"method": "solver", "evaluations": 3}}, "none"), PROMPTS)


def test_what_costs_more_than_the_budget_is_refused() -> None:
    with pytest.raises(BadPipeline, match="allows no schedule"):
        Search(Scored(recipe()), 0.01, [0.125], 1).run()


def test_a_cache_without_letters_cannot_be_searched() -> None:
    plain = Recipe.parse({"model": {"method": "tiny"}, "cache": {"method": "reuse"}})
    with pytest.raises(BadPipeline, match="no schedule of letters"):
        with_schedule(plain, Candidate("FS", 4))
