"""Setting: how a forecast cache runs, as factors hold it: which steps are full, and what it extrapolates by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ditstack.caching.feature_cache import FeatureCache
from ditstack.maths.schedule import spell

if TYPE_CHECKING:
    from ditstack.pipeline.pipe import Pipe

COORDINATES = ("step", "sigma")
SAID = "schedule: "
GAINS = ((4,), (5,))
"""Shapes of a gain; older files say nothing of decoding, which nothing did then."""
LONGEST = 1_000
"""Characters of a sentence that stands beside a setting."""


class Gain(NamedTuple):
    """Decibels gained, with their 95 % interval, on how many pictures, and whether those were decoded."""

    mean: float
    low: float
    high: float
    number: float
    decoded: float = 0.0

    @property
    def seen(self) -> str:
        """On what it was told."""
        return f"in {self.number:.0f} {'pictures' if self.decoded else 'final latents'} of prompts set aside"

    def over(self, other: str) -> str:
        """In words."""
        return f"{self.mean:+.2f} dB ({self.low:+.2f} to {self.high:+.2f}) over {other}, {self.seen}"


@dataclass(frozen=True)
class Setting:
    """How a forecast cache runs: its full steps of how many, the order of its forecast, and what that counts in."""

    steps: int
    full: tuple[int, ...]
    order: int = 1
    coordinate: str = "step"

    def __str__(self) -> str:
        counted = "in steps" if self.coordinate == "step" else "in sigma"
        return f"full steps {', '.join(map(str, self.full))} of {self.steps}; order {self.order} {counted}"

    def tensors(self) -> dict[str, Tensor]:
        """As factors hold it."""
        full = torch.zeros(self.steps, dtype=torch.bool)
        full[list(self.full)] = True
        return {"full": full, "forecast": torch.tensor([self.order, COORDINATES.index(self.coordinate)])}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Setting | None:
        """What factors hold; None where nothing was chosen."""
        if "full" not in tensors:
            return None
        full, (order, coordinate) = tensors["full"], tensors["forecast"].tolist()
        return cls(len(full), tuple(full.nonzero().flatten().tolist()), order, COORDINATES[coordinate])


def wrong_setting(tensors: Mapping[str, Tensor]) -> list[str]:
    """Why `Setting.of` cannot read these."""
    if not {"full", "forecast"} <= tensors.keys():
        return ["full, forecast: missing; no schedule was chosen"]
    full, forecast, wrong = tensors["full"], tensors["forecast"], []
    if full.ndim != 1 or full.dtype != torch.bool or not len(full) or not full[0]:
        wrong.append("full: wanted true or false for every step, the first of them true")
    if forecast.tolist() not in [[order, place] for order in (1, 2, 3) for place in range(len(COORDINATES))]:
        wrong.append("forecast: wanted an order of 1 to 3, and 0 or 1 for what it counts in")
    if "beside" in tensors and not _is_sentence(tensors["beside"]):
        wrong.append(f"beside: wanted a sentence of at most {LONGEST} letters")
    return wrong


def follow_setting(pipe: Pipe, tensors: Mapping[str, Tensor], otherwise: Callable[[int], Sequence[str]]) -> None:
    """Let a pipe's steps run as factors say, where they say anything, and note what that gained.

    Args:
        otherwise: how generations of another number of steps run.
    """
    setting = Setting.of(tensors)
    if setting is None or pipe.policy is None:
        return
    kinds = spell(setting.full, setting.steps, "forecast")
    pipe.policy.follow(lambda steps: kinds if steps == setting.steps else otherwise(steps))
    FeatureCache.on(pipe).coordinate = setting.coordinate
    pipe.notes = [note for note in pipe.notes if not note.startswith(SAID)]
    if "gain" in tensors:
        pipe.notes.append(told(setting, Gain(*tensors["gain"].tolist())))
    if "beside" in tensors:
        pipe.notes.append(read(tensors["beside"]))


def told(setting: Setting, gain: Gain) -> str:
    """What was chosen, in a sentence."""
    if not any(gain[:3]):
        return f"{SAID}the default is kept ({setting}): no clear gain {gain.seen}"
    return f"{SAID}{setting}: {gain.over('the default')}"


def written(sentence: str) -> Tensor:
    """A sentence, as factors hold it."""
    return torch.tensor(list(sentence.encode()), dtype=torch.uint8)


def read(letters: Tensor) -> str:
    """The same read back."""
    return bytes(letters.tolist()).decode(errors="replace")


def _is_sentence(letters: Tensor) -> bool:
    plain = letters.ndim == 1 and letters.dtype == torch.uint8 and len(letters) <= LONGEST
    return plain and read(letters).startswith(SAID) and read(letters).isprintable()
