"""A schedule is chosen on the model that runs, kept where prompts set aside gain clearly, and stored with factors."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import ditstack.calibration.choice as choosing
from ditstack.caching.setting import Setting, written, wrong_setting
from ditstack.calibration.choice import Choice, choose_setting
from ditstack.calibration.run import Partial
from ditstack.errors import BadPipeline
from ditstack.maths.schedule import even, graded
from ditstack.recipe.recipe import Sampler

STEPS, COUNT = 20, 5
START = Setting(STEPS, graded(STEPS, COUNT))
BOTH = [(1, "step"), (2, "step")]
FIRST, OTHERS = range(8), range(8, 16)


def scored(best: Setting, agree: bool = True) -> Any:
    """A cached run that is known beforehand: the nearer to `best`, the better; the other prompts agree or do not."""
    asked: list[tuple[Setting, Sequence[int]]] = []

    def scores(setting: Setting, places: Sequence[int]) -> list[float]:
        asked.append((setting, places))
        far = sum(abs(a - b) for a, b in zip(setting.full, best.full, strict=True)) + 5 * (setting.order != best.order)
        return [30.0 - (1 if agree or place in FIRST else -1) * far + 0.01 * place for place in places]

    scores.asked = asked  # pyright: ignore[reportFunctionMemberAccess]
    return scores


def test_the_best_schedule_and_order_are_found_and_what_they_gain_is_told_of_other_prompts() -> None:
    best = Setting(STEPS, (0, 2, 5, 10, 15), order=2)
    scores = scored(best)
    found, gain = Choice(scores, START, BOTH).decided(FIRST, OTHERS)
    assert found == best
    assert gain[0] == pytest.approx(30.0 - scores(START, OTHERS)[0] + 0.08)
    assert gain[1] > 0


def test_what_other_prompts_do_not_gain_by_is_not_kept() -> None:
    scores = scored(Setting(STEPS, (0, 5, 9, 13, 15), order=2), agree=False)
    assert Choice(scores, START, BOTH).decided(FIRST, OTHERS) == (START, (0.0, 0.0, 0.0))


def chosen_of(known: dict[Setting, tuple[Sequence[float], Sequence[float]]], others: float) -> Setting:
    """What is chosen where the gains of some settings over the default are known, on either half of the pictures."""

    def scores(setting: Setting, places: Sequence[int]) -> list[float]:
        first, second = known.get(setting, ([others] * 8, [others] * 8))
        return [30.0 + [*first, *second][place] for place in places]

    return Choice(scores, START, BOTH).decided(FIRST, OTHERS)[0]


EVEN, MOVED = Setting(STEPS, even(STEPS, COUNT)), Setting(STEPS, (0, 4, 8, 12, 15))
SURE, UNSURE = [1.0, 1.2] * 4, [1.0, -0.9] * 4
DEFAULT = {START: ([0.0] * 8, [0.0] * 8)}


def test_even_steps_need_not_be_best_on_the_prompts_that_choose_and_both_halves_speak_for_them() -> None:

    behind = [-0.5] * 8
    assert chosen_of({**DEFAULT, EVEN: (behind, [3.0] * 8)}, -9.0) == EVEN
    nearly = [2.0, 2.0, 2.0, 2.0, -2.0, -2.0, 2.0, -2.0]
    assert choosing.paired(nearly, [0.0] * 8)[1] < 0
    assert chosen_of({**DEFAULT, EVEN: (nearly, nearly)}, -9.0) == START
    assert chosen_of({**DEFAULT, EVEN: ([2.0] * 8, nearly)}, -9.0) == EVEN


def test_what_was_fitted_must_gain_clearly_over_even_steps_where_those_gain_over_the_default() -> None:
    assert MOVED.full in choosing.nearby(EVEN.full, STEPS)
    ahead = [one + 0.2 for one in SURE]
    assert chosen_of({**DEFAULT, EVEN: (SURE, SURE), MOVED: (ahead, ahead)}, -9.0) == MOVED
    unclear = [a + b for a, b in zip(SURE, UNSURE, strict=True)]
    assert chosen_of({**DEFAULT, EVEN: (SURE, SURE), MOVED: (ahead, unclear)}, -9.0) == EVEN


def test_every_setting_takes_as_many_full_steps_and_keeps_the_last_ones() -> None:
    start = Setting(STEPS, (*graded(STEPS, COUNT)[:3], 18, 19))
    scores = scored(Setting(STEPS, (0, 1, 2, 3, 4)))
    Choice(scores, start, BOTH, last_full=2).decided(FIRST, OTHERS)
    tried = {setting.full for setting, _ in scores.asked}
    assert len(tried) > 5
    assert {(len(full), *full[-2:]) for full in tried} == {(COUNT, 18, 19)}


def test_a_setting_that_loses_on_the_first_prompts_runs_on_no_others() -> None:
    scores = scored(START)
    Choice(scores, START, BOTH).decided(FIRST, OTHERS)
    plain = Setting(STEPS, even(STEPS, COUNT))
    longer = {(setting, tuple(places)) for setting, places in scores.asked if len(places) > choosing.RACE[0]}
    assert {setting for setting, _ in longer} == {START, plain}
    assert {places for setting, places in longer if setting == plain} == {(*FIRST, *OTHERS)}


class Prompts:
    """Prompts whose pictures are told: by the setting that was taken, and by which prompt.

    Attributes:
        decodes: whether there are pictures; else they are final latents.
        rivals: how far pictures of plain solvers are from the uncached ones, by the name of their scheduler.
    """

    sampler = Sampler(steps=STEPS)

    def __init__(self, count: int = 16, partial: Any = None, die_after: int = 0) -> None:
        self.prompts, self.partial = ["a"] * count, partial or Partial()
        self.told: list[str] = []
        self.tell, self.taken = self.told.append, START
        self.ran, self.die_after = 0, die_after
        self.spent, self.decodes = {"denoise": 7.0, "decode": 1.0}, True
        self.flow: bool | None = True
        self.rivals: Mapping[Any, float] = {}
        self.solved: Sampler | None = None

    def take(self, setting: Setting) -> None:
        self.taken = setting

    @contextmanager
    def solved_by(self, sampler: Sampler) -> Iterator[None]:
        if sampler.scheduler == "DEISMultistepScheduler":
            raise BadPipeline("it takes no sigmas")
        self.solved = sampler
        yield
        self.solved = None

    def uncached_pictures(self, places: range) -> torch.Tensor:
        off = 0.0 if self.solved is None else self.rivals.get(self.solved.scheduler, 0.9)
        return torch.ones(len(places), 4) * (1 - off)

    def pictures(self, places: range) -> torch.Tensor:
        self.ran += 1
        if self.ran == self.die_after:
            raise KeyboardInterrupt
        if self.taken.order == 2:
            raise BadPipeline("a picture holds NaN or infinity")
        far = sum(abs(a - b) for a, b in zip(self.taken.full, even(STEPS, COUNT), strict=True))
        return torch.ones(len(places), 4) * (1.01 + 0.01 * far)

    def chosen(self) -> dict[str, torch.Tensor]:
        run: Any = self
        return choose_setting(run, self.take, START, BOTH)


def test_a_forecast_that_overflows_loses_and_stops_nothing() -> None:
    prompts = Prompts()
    assert Setting.of(prompts.chosen()) == Setting(STEPS, even(STEPS, COUNT))
    assert prompts.told[-1].startswith("schedule: full steps 0, 4, 8, 12, 16 of 20; order 1 in steps: +")
    assert prompts.told[-1].endswith("over the default, in 32 pictures of prompts set aside")
    assert prompts.told[-2].endswith("judged by their pictures, in 8 s, of which decoding took 1.0 s")


def test_a_pipe_that_decodes_nothing_is_judged_by_its_final_latents_and_says_so() -> None:
    prompts = Prompts()
    prompts.decodes = False
    found = prompts.chosen()
    assert Setting.of(found) == EVEN
    assert prompts.told[-2].endswith("judged by their final latents, since this pipeline decodes none")
    assert prompts.told[-1].endswith("over the default, in 32 final latents of prompts set aside")
    relative = 20 * math.log10(6)  # 0.06 from the uncached ones, and 0.01
    assert found["gain"].tolist() == pytest.approx([relative, relative, relative, 32, 0], rel=1e-4)


def test_a_plain_solver_that_is_ahead_of_what_was_chosen_is_said_with_the_lines_to_write() -> None:
    prompts = Prompts()
    prompts.rivals = {"UniPCMultistepScheduler": 0.005, None: 0.009}
    found = prompts.chosen()
    assert Setting.of(found) == EVEN
    said = (
        "schedule: without a cache, as many evaluations by UniPC, order 2 gain +6.02 dB (+6.02 to +6.02) over this, in "
        "32 pictures of prompts set aside; write sampler: {steps: 5, settings: {solver_order: 2}, scheduler: "
        "UniPCMultistepScheduler} and cache: none for that"
    )
    assert prompts.told[-1] == said
    assert found["beside"].tolist() == written(said).tolist()
    prompts = Prompts()
    prompts.rivals = {"UniPCMultistepScheduler": 0.02}
    assert "beside" not in prompts.chosen()
    assert prompts.told[-1].startswith("schedule: full steps")


def test_a_plain_solver_that_is_ahead_is_said_where_that_is_not_clear_and_where_it_is_behind_nothing_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prompts = Prompts()
    prompts.rivals = {"UniPCMultistepScheduler": 0.005}
    monkeypatch.setattr(choosing.Choice, "decided", lambda self, *_: (EVEN, (1.0, 0.5, 1.5)))
    monkeypatch.setattr(choosing, "paired", lambda *_: (0.5, -0.1, 1.1))
    prompts.chosen()
    assert (
        "gain +0.50 dB (-0.10 to +1.10) over this, in 32 pictures of prompts set aside (not clear); write"
        in (prompts.told[-1])
    )
    monkeypatch.setattr(choosing, "paired", lambda *_: (-0.5, -1.1, 0.1))
    assert "beside" not in prompts.chosen()


def test_a_sampler_that_was_fitted_has_no_rivals() -> None:
    prompts = Prompts()
    prompts.rivals, prompts.flow = {"UniPCMultistepScheduler": 0.0}, None
    assert "beside" not in prompts.chosen()


def test_a_default_that_fails_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = Prompts()
    monkeypatch.setattr(prompts, "pictures", lambda places: (_ for _ in ()).throw(BadPipeline("NaN")))
    with pytest.raises(BadPipeline, match="NaN"):
        prompts.chosen()


def test_a_killed_choice_goes_on_and_ends_where_it_would_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ditstack.calibration.run.PAUSE", 0)
    whole = Prompts()
    expected = whole.chosen()
    with pytest.raises(KeyboardInterrupt):
        Prompts(partial=Partial(tmp_path / "p", {}), die_after=20).chosen()
    resumed = Prompts(partial=Partial(tmp_path / "p", {}))
    found = resumed.chosen()
    assert resumed.ran == whole.ran - 19
    assert all(torch.equal(one, expected[name]) for name, one in found.items())


def test_too_few_prompts_choose_nothing() -> None:
    with pytest.raises(BadPipeline, match="found 7 calibration prompts; a choice takes at least 8"):
        Prompts(count=7).chosen()


def test_pictures_that_decide_are_of_other_prompts_and_many_however_few_prompts_there_are() -> None:
    run: Any = Prompts(count=9)
    fitting, deciding = choosing.halves(run)
    assert {place % 9 for place in fitting} == set(range(4))
    assert {place % 9 for place in deciding} == set(range(4, 9))
    assert len(set(fitting)) == len(fitting) >= choosing.CHOOSING
    assert len(set(deciding)) == len(deciding) >= choosing.DECIDING


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({}, "missing"),
        ({**START.tensors(), "full": torch.zeros(STEPS, dtype=torch.bool)}, "the first of them true"),
        ({**START.tensors(), "full": torch.arange(STEPS)}, "true or false"),
        ({**START.tensors(), "forecast": torch.tensor([4, 0])}, "an order of 1 to 3"),
        ({**START.tensors(), "forecast": torch.tensor([1])}, "an order of 1 to 3"),
        ({**START.tensors(), "beside": written("schedule: a\nb")}, "wanted a sentence"),
        ({**START.tensors(), "beside": written("schedule: " + 1_000 * "a")}, "wanted a sentence"),
    ],
)
def test_factors_that_name_no_setting_are_refused(tensors: dict[str, torch.Tensor], said: str) -> None:
    assert said in " ".join(wrong_setting(tensors))
    assert wrong_setting(START.tensors()) == []
    assert Setting.of(START.tensors()) == START
