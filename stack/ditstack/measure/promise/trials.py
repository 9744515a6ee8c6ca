"""Trials: pictures of prompts with and without acceleration. What was made is on disk: a killed run goes on there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ditstack.assembly.sample import Pictures
from ditstack.assembly.solvers import is_flow
from ditstack.calibration.certificate import Attempt, conditions_of
from ditstack.calibration.conditions import digest
from ditstack.calibration.promised import scores
from ditstack.calibration.run import Bar
from ditstack.errors import BadFile
from ditstack.factors import Factors
from ditstack.maths import fidelity
from ditstack.measure.bench import weight_bytes
from ditstack.recipe.recipe import Recipe
from ditstack.stack import Stack, load

BATCH = 16
EQUAL = 1000.0
"""dB, of pictures that are equal in every value."""

Part = dict[str, Tensor]


@dataclass
class Found:
    """What became of one setting.

    Attributes:
        psnr: of each picture, in dB to its unaccelerated one.
        scores: of each picture, by name.
        conditions: that they were made under.
    """

    attempt: Attempt
    psnr: list[float]
    scores: dict[str, list[float]]
    conditions: dict[str, str]

    @property
    def low(self) -> float:
        """The 5th percentile in dB."""
        return float(fidelity.low_end(torch.tensor(self.psnr, dtype=torch.float64)))


@dataclass
class Trials:
    """Pictures of prompts, with and without acceleration.

    Attributes:
        first_seed: of the first prompt; they count up.
        kept: a folder of files, each named by all that it depends on; None keeps nothing.
    """

    recipe: Recipe
    prompts: Sequence[str]
    first_seed: int
    bar: Bar = lambda part, done, count: None
    kept: Path | None = None
    macs: int = 0
    """Of all unaccelerated pictures."""
    flow: bool = True
    """Whether the model's scheduler integrates a flow."""
    _plain: list[Tensor] = field(default_factory=list)

    def make_plain(self) -> None:
        """The unaccelerated pictures, which everything is compared with."""
        stack = load(self.recipe.plain())
        self.flow = is_flow(stack.pipeline.scheduler)
        for part in self._parts(stack, self.recipe.plain(), "plain", _plain):
            self._plain.append(part["images"])
            self.macs += int(part["macs"])

    def of(self, stack: Stack, psnr: float, most: int, title: str, changes: dict[str, Any]) -> Found:
        """How many pictures of a stack are under `psnr`; it ends where more than `most` are."""
        each: list[float] = []
        told: dict[str, list[float]] = {}
        broken = macs = 0

        def compared(stack: Stack, made: Pictures, at: int) -> Part:
            near = fidelity.psnr(made.images, self._plain[at // BATCH])
            found = {f"score/{name}": _doubles(values) for name, values in scores(stack.pipe, made).items()}
            return {"psnr": _doubles([min(one, EQUAL) for one in near]), "macs": torch.tensor(made.macs), **found}

        for part in self._parts(stack, stack.recipe, title, compared):
            near = part["psnr"].tolist()
            each, macs = each + near, macs + int(part["macs"])
            broken += sum(one < psnr for one in near)
            for name in sorted(part.keys() - {"psnr", "macs"}):
                told.setdefault(name.removeprefix("score/"), []).extend(part[name].tolist())
            if broken > most:
                break
        share = macs / len(each) / (self.macs / len(self.prompts))
        found = Attempt(
            changes=changes,
            pictures=len(each),
            broken=broken,
            macs=share,
            kept=broken <= most,
            weights=weight_bytes(stack.pipe),
        )
        return Found(found, each, told, conditions_of(stack.recipe, stack.pipe, stack.factors))

    def _parts(
        self, stack: Stack, recipe: Recipe, title: str, told: Callable[[Stack, Pictures, int], Part]
    ) -> Iterator[Part]:
        """What is kept of every batch, made where it is not there yet."""
        under = conditions_of(recipe, stack.pipe, stack.factors) if self.kept is not None else {}
        for at in range(0, len(self.prompts), BATCH):
            prompts = self.prompts[at : at + BATCH]
            seeds = [self.first_seed + at + place for place in range(len(prompts))]
            file = None if self.kept is None else self.kept / f"{digest([title, under, prompts, seeds])}.safetensors"
            part = None if file is None else _read(file)
            if part is None:
                part = told(stack, stack.sample(prompts, seeds), at)
                if file is not None:
                    Factors(part, {}).save(file)
            yield part
            self.bar(title, at + len(prompts), len(self.prompts))


def _plain(stack: Stack, made: Pictures, at: int) -> Part:
    return {"images": made.images, "macs": torch.tensor(made.macs)}


def _read(file: Path) -> Part | None:
    """What was kept; None where there is nothing, or not a whole file."""
    try:
        return Factors.load(file).tensors if file.is_file() else None
    except BadFile:
        return None


def _doubles(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
