"""Fitting: the low-rank factors of every linear, from what its increments are along the cached schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ditstack.caching.linears import LowRankLinears, wrong_corrections
from ditstack.caching.setting import GAINS, Gain
from ditstack.calibration.choice import halves
from ditstack.calibration.compensation import running_weight
from ditstack.calibration.moments import ROOM_GB, Moments
from ditstack.calibration.run import Judge
from ditstack.calibration.statistics import Channels, Grams, LinearSurvey, Replay, See, Since, seeing
from ditstack.errors import BadFile, BadPipeline
from ditstack.maths.fidelity import paired
from ditstack.maths.lowrank import (
    LowRank,
    allocate,
    channel_scale,
    largest_ranks,
    observed_map,
    regress,
    truncate,
)
from ditstack.pipeline.pipe import CALIBRATED, Pipe
from ditstack.recipe.calibration import NO_PROMPTS

if TYPE_CHECKING:
    from ditstack.recipe.calibration import Calibration

By = Literal["svd", "ca", "cd", "rrr", "rrr_observed"]
ANCHORS = ("last", "line")
BESIDE = ("counted_from", "gain")
"""What stands beside the corrections where calibration chose what increments count from."""
SAID = "anchor: "
SENSED = 2
"""How many prompts are run beforehand, and again with gradients."""


@dataclass
class Wish:
    """What is to be fitted.

    Attributes:
        by: how.
        rank: components of every linear, or their share of its smaller width.
        macs: what a calibrated step may cost, as a share of a full one; ranks then go where they pay.
        weighted: whether an output's error counts by what it does to the transformer's output.
        room_gb: GB of the GPU that what is added up of activations may take.
    """

    by: By
    rank: int | float
    macs: float | None = None
    weighted: bool = True
    room_gb: float = ROOM_GB


class Fit:
    """One fit on one pipe."""

    def __init__(self, pipe: Pipe, low_rank: LowRankLinears, calibration: Calibration, wish: Wish) -> None:
        if not calibration.prompts:
            raise BadFile(NO_PROMPTS)
        self.pipe, self.linears, self.calibration, self.wish = pipe, low_rank.linears, calibration, wish
        self.low_rank, self.order = low_rank, low_rank.order
        self.survey = LinearSurvey()
        self.replay = Replay(pipe)
        self.metrics: dict[str, Tensor] = {}

    def tensors(self) -> dict[str, Tensor]:
        """The factors, as `LowRankLinears.take` reads them."""
        self._look()
        pair = self._gather()
        fitted, ranks = self._fit(pair)
        out = {}
        for members in self._sharing():
            kept = {name: fitted[name].cut(ranks[name]) for name in members if ranks[name]}
            if kept:
                out[f"{'+'.join(kept)}.down"] = torch.cat([one.down for one in kept.values()])
            out |= {f"{name}.up": one.up.contiguous() for name, one in kept.items()}
        return out

    def _sharing(self) -> Iterator[list[str]]:
        """The linears that share a product with their stacked B: they read one tensor, and run alike on every step."""
        policy = self.pipe.policy
        for members in self.survey.groups():
            if policy is None or not policy.by_layer:
                yield members
                continue
            layers: dict[str, list[str]] = {}
            for name in members:
                layers.setdefault(policy.layer(name), []).append(name)
            yield from layers.values()

    def _fit(self, pair: Callable[[str], LowRank]) -> tuple[dict[str, LowRank], dict[str, int]]:
        """Every linear fitted once, with no more components than it may get; and the rank that each gets."""
        transformer: Any = next(iter(self.pipe.transformers.values()))
        fitted: dict[str, LowRank] = {}
        energies: dict[str, Tensor] = {}
        most, costs, budget = self._limits()
        for name, rank in most.items():
            whole = pair(name)
            energies[name], fitted[name] = whole.energy.cpu(), whole.cut(rank).stored(transformer.dtype)
        return fitted, most if budget is None else allocate(energies, costs, budget)

    def _gather(self) -> Callable[[str], LowRank]:
        """Run what must be run; what comes back fits one linear."""
        by = self.wish.by
        if by == "svd":
            return lambda name: truncate(self._weight(name))
        if by in ("ca", "cd"):
            channels = Channels()
            see = channels if by == "ca" else Since(self.pipe, channels, None)
            self._run("activity of channels", see, channels.rows, channels.settle)
            return lambda name: self._scaled(name, channels)
        return self._regression()

    def _scaled(self, name: str, channels: Channels) -> LowRank:
        left, right = channel_scale(channels.rows[f"{name}/y"]), channel_scale(channels.rows[f"{name}/x"])
        return truncate(self._weight(name), left, right)

    def _regression(self) -> Callable[[str], LowRank]:
        observed = self.wish.by == "rrr_observed"
        moments = Moments(sums := {}, self.wish.room_gb)
        gram = Grams(self._moment, moments)
        cross = Grams(lambda name, x, y: (y, x) if observed else None, moments, "observed ")

        def see(name: str, dx: Tensor, dy: Tensor) -> None:
            gram(name, dx, dy)
            cross(name, dx, dy)

        self._run("increments", Since(self.pipe, see, self.order), sums, moments.settle)
        if moments.most:
            self.calibration.tell(f"increments: their sums took at most {moments.most / 1e9:.1f} GB of the GPU")
        if self.wish.weighted:
            self.calibration.gather("sensitivity of the output", self.metrics, self._sense, count=1)

        def fitted(name: str) -> LowRank:
            source = self.survey.inputs[name] if self._by_input(name) else name
            moment = sums.get(source, torch.eye(self.survey.shapes[name][1], dtype=torch.float64)).to(self.pipe.device)
            weight, metric = self._weight(name).to(moment), self.metrics.get(name)
            if f"observed {name}" in sums:
                weight = observed_map(weight, moment, sums[f"observed {name}"].to(moment))
            return regress(weight, moment, metric)

        return fitted

    def _weight(self, name: str) -> Tensor:
        return running_weight(self.linears[name]).double()

    def _by_input(self, name: str) -> bool:
        """Whether changes of the input are gathered, not of the output: the narrower, where both serve."""
        height, width = self.survey.shapes[name]
        return width <= height or self.wish.by == "rrr_observed"

    def _moment(self, name: str, dx: Tensor, dy: Tensor) -> tuple[Tensor, Tensor] | None:
        if not self._by_input(name):
            return dy, dy
        return (dx, dx) if self.survey.inputs[name] == name else None

    def _look(self) -> None:
        """Which linears read tokens, and what calls are run again with gradients: a few prompts tell."""
        self._spent = 0
        for place in range(min(SENSED, len(self.calibration.prompts))):
            with self.replay.recording(), seeing(self.linears, self.survey):
                self.calibration.uncached_latents(range(place, place + 1))
            self._spent += self.pipe.passes.macs
        self.survey.finish()

    def _sense(self, _place: range) -> None:
        self.metrics.update(self.replay.sensitivity(self.linears, room_gb=self.wish.room_gb))

    def _run(self, part: str, see: See, sums: dict[str, Tensor], settle: Callable[[], None] = lambda: None) -> None:
        """Run the prompts one by one without the cache, seeing every linear; `sums` is what is gathered.

        Args:
            settle: called after each prompt, when `sums` must hold all that it told.
        """

        def run(place: range) -> None:
            with seeing(self.linears, see):
                self.calibration.uncached_latents(place)
            settle()

        self.calibration.gather(part, sums, run)

    def _limits(self) -> tuple[dict[str, int], dict[str, float], float | None]:
        """The largest rank of each linear; what one component costs; what all may cost, None where ranks are given."""
        shapes, rows, wish = self.survey.shapes, self.survey.rows, self.wish
        costs = {name: float(rows[name] * sum(shape)) for name, shape in shapes.items()}
        if wish.macs is not None:
            budget = self._budget()
            return largest_ranks({name: min(shape) for name, shape in shapes.items()}, costs, budget), costs, budget
        sizes = {name: min(shape) for name, shape in shapes.items()}
        share, rank = isinstance(wish.rank, float), wish.rank
        ranks = {name: max(1, round(rank * size)) if share else int(rank) for name, size in sizes.items()}
        return {name: min(ranks[name], size) for name, size in sizes.items()}, costs, None

    def _budget(self) -> float:
        """What corrections may cost in all that was run, beside what is computed anew."""
        assert self.wish.macs is not None
        anew = self._anew()
        if self.wish.macs <= anew:
            raise BadPipeline(
                f"cache.macs: found {self.wish.macs} of a full step; what every calibrated step recomputes, such as "
                f"attention, takes {anew:.2f} already: write more than that"
            )
        return (self.wish.macs - anew) * self._spent

    def _anew(self) -> float:
        """What a calibrated step without corrections takes of a full one; one prompt tells."""
        with self.low_rank.trial({}):
            self.calibration.latents(range(1))
        return self.pipe.passes.shares.get(CALIBRATED, 0.0)


def fit_anchored(pipe: Pipe, low_rank: LowRankLinears, calibration: Calibration, wish: Wish) -> dict[str, Tensor]:
    """Corrections fitted on one half of the prompts, for increments from the last full step and from a line.

    The line takes twice the memory: it is kept where the other half gains clearly by it.

    Raises:
        BadPipeline: there are too few prompts.
    """
    _, deciding = halves(calibration)
    judge, fitted, scored = Judge(calibration, "anchors"), [], []
    for order, word in enumerate(ANCHORS):
        low_rank.order = order
        half = calibration.first(len(calibration.prompts) // 2, word)
        fitted.append(Fit(pipe, low_rank, half, wish).tensors())
        low_rank.take(fitted[-1])
        scored.append(judge.scores(word, deciding, calibration.pictures))
    gain = Gain(*paired(scored[1], scored[0]), len(deciding), calibration.decodes)
    order = int(gain.low > 0)
    calibration.tell(told(order, gain))
    return {**fitted[order], "counted_from": torch.tensor(order), "gain": torch.tensor(gain, dtype=torch.float64)}


def take_anchored(pipe: Pipe, low_rank: LowRankLinears, tensors: Mapping[str, Tensor]) -> None:
    """Correct by these from the next generation on, counting from the anchor that stands beside them, if one does."""
    if "counted_from" in tensors:
        low_rank.order = int(tensors["counted_from"])
        pipe.notes = [note for note in pipe.notes if not note.startswith(SAID)]
        pipe.notes.append(told(low_rank.order, Gain(*tensors["gain"].tolist())))
    low_rank.take(_corrections(tensors))


def wrong_anchored(pipe: Pipe, tensors: Mapping[str, Tensor]) -> list[str]:
    """Why `take_anchored` cannot read these."""
    return wrong_anchor(tensors) + wrong_corrections(pipe, _corrections(tensors))


def _corrections(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: one for name, one in tensors.items() if name not in BESIDE}


def wrong_anchor(tensors: Mapping[str, Tensor]) -> list[str]:
    """Why `take_anchored` cannot read what stands beside the corrections."""
    anchor, gain = (tensors.get(name) for name in BESIDE)
    if anchor is None or gain is None:
        return ["counted_from, gain: missing; no anchor was chosen"]
    right = anchor.shape == () and anchor.item() in range(len(ANCHORS)) and gain.shape in GAINS
    return [] if right else ["counted_from, gain: wanted 0 or 1, and five figures"]


def told(order: int, gain: Gain) -> str:
    """What was chosen, in a sentence."""
    return f"{SAID}{ANCHORS[order]}; a line gains {gain.over('increments from the last full step')}"
