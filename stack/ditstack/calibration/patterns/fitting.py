"""Fitting along a pattern: corrections, the pattern that is learned with them, and corrections along that one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ditstack.caching.linears import LowRankLinears, wrong_corrections
from ditstack.caching.patterns import FILLED, Columns, LayerPolicy, Pattern, wrong_pattern
from ditstack.caching.setting import Gain
from ditstack.calibration.choice import halves
from ditstack.calibration.fits import Fit, Wish
from ditstack.calibration.patterns.learning import Frame, Learning, PatternRuns
from ditstack.calibration.statistics import LinearSurvey, seeing
from ditstack.pipeline.pipe import Pipe
from ditstack.recipe.calibration import Calibration

GAIN, SAID = "gain", "pattern: "


def fit_patterned(
    pipe: Pipe,
    low_rank: LowRankLinears,
    calibration: Calibration,
    wish: Wish,
    fixed: Callable[[Mapping[str, float]], Frame],
) -> dict[str, Tensor]:
    """The pattern that costs no more than a fixed one and gains most, and corrections fitted along it.

    One half of the prompts chooses, the other decides; without a clear gain the fixed one is kept.

    Args:
        fixed: the frame, by what each layer saves.

    Raises:
        BadPipeline: there are too few prompts.
    """
    fitting, deciding = halves(calibration)
    policy, count = _policy(pipe), len(calibration.prompts)
    if wish.rank:
        low_rank.take(Fit(pipe, low_rank, calibration.first(count // 2, "period"), wish).tensors())
    frame = fixed(_saved(pipe, low_rank, calibration))
    runs = PatternRuns(calibration, lambda pattern: policy.follow_columns(lambda steps: pattern.columns))
    pattern, gain = Learning(frame, runs.scores).decided(fitting, deciding)
    calibration.tell(f"pattern: {runs.judge.made / count:.0f} cached generations of each prompt were tried")
    decided = torch.tensor([*gain, len(deciding)], dtype=torch.float64)
    calibration.tell(told(pattern, decided))
    found = {**pattern.tensors(), GAIN: decided}
    policy.follow_columns(lambda steps: pattern.columns)
    if wish.rank:
        found |= Fit(pipe, low_rank, calibration.first(count, "learned pattern"), wish).tensors()
    return found


def _saved(pipe: Pipe, low_rank: LowRankLinears, calibration: Calibration) -> dict[str, float]:
    """By layer that reads tokens, what a step saves on which it is corrected: (O I + R I) - (R I + R O) a token."""
    survey, policy = LinearSurvey(), _policy(pipe)
    with seeing(low_rank.linears, survey):
        calibration.uncached_latents(range(1))
    found: dict[str, float] = {}
    for name, (height, width) in survey.shapes.items():
        up = low_rank.factors.get(f"{name}.up")
        rank = 0 if up is None else up.shape[1]
        layer = policy.layer(name)
        found[layer] = found.get(layer, 0.0) + survey.rows[name] * height * (width - rank)
    return found


def take_patterned(
    pipe: Pipe, low_rank: LowRankLinears, tensors: Mapping[str, Tensor], otherwise: Callable[[int], Columns]
) -> None:
    """Follow the pattern among factors, and correct by the others, from the next generation on.

    Args:
        otherwise: the columns for another number of steps.
    """
    pattern = Pattern.of(tensors)
    if pattern is not None and GAIN in tensors:
        columns, steps = pattern.columns, pattern.steps
        _policy(pipe).follow_columns(lambda count: columns if count == steps else otherwise(count))
        pipe.notes = [note for note in pipe.notes if not note.startswith(SAID)]
        pipe.notes.append(told(pattern, tensors[GAIN]))
    low_rank.take(_corrections(tensors))


def wrong_patterned(pipe: Pipe, tensors: Mapping[str, Tensor], rank: int | float) -> list[str]:
    """Why `take_patterned` cannot read these."""
    decided, corrections = tensors.get(GAIN), _corrections(tensors)
    wrong = [] if decided is not None and decided.shape == (4,) else ["gain: wanted four figures"]
    wrong += wrong_pattern(pipe, tensors) + wrong_corrections(pipe, corrections)
    return wrong or (["there are no corrections"] if rank and not corrections else [])


def fit_along(
    pipe: Pipe, low_rank: LowRankLinears, calibration: Calibration, wish: Wish, pattern: Pattern
) -> dict[str, Tensor]:
    """Corrections fitted along a given pattern, and that pattern."""
    return {**Fit(pipe, low_rank, calibration, wish).tensors(), **pattern.tensors()}


def wrong_along(pipe: Pipe, tensors: Mapping[str, Tensor], pattern: Callable[[int], Pattern]) -> list[str]:
    """Why corrections cannot serve that were fitted along a given pattern: they were along another one."""
    known = Pattern.of(tensors)
    wrong = wrong_pattern(pipe, tensors) or wrong_corrections(pipe, _corrections(tensors))
    if wrong or known is None or known.columns == pattern(known.steps).columns:
        return wrong
    return ["the pattern: its file says otherwise now than when the factors were fitted"]


def told(pattern: Pattern, decided: Tensor) -> str:
    """What was learned, in a sentence."""
    gain = Gain(*decided.tolist()).over("a fixed pattern")
    if decided[1] <= 0:
        return f"{SAID}the fixed one is kept, the best one found is not clearly better: {gain}"
    full = [sum(column) for column in pattern.columns.values()]
    return f"{SAID}learned, layers run in full on {min(full)} to {max(full)} of {pattern.steps} steps: {gain}"


def _policy(pipe: Pipe) -> LayerPolicy:
    assert isinstance(pipe.policy, LayerPolicy), "a pattern needs a policy that tells layers apart"
    return pipe.policy


def _corrections(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: one for name, one in tensors.items() if name != GAIN and not name.endswith(FILLED)}
