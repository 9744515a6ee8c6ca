"""One twin at one setting: its uncached pictures, and stacks measured against them."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ditstack.maths import fidelity
from ditstack.maths.schedule import even, graded
from ditstack.measure.controls import Controls, evaluations_of
from ditstack.recipe.recipe import Recipe
from ditstack.stack import Stack, load
from ditstack_adapters.model.embedded import shapes
from ditstack_adapters.model.embedded.judge import ShapesJudge
from ditstack_adapters.model.tiny import FOLDER
from replicating.likeness import likeness, of_real_ones
from sampled import KEPT, kept
from twinning.twin import Twin, find

Row = dict[str, Any]
CASE, EMBEDDED = "replication", "tiny"
TWINS = Path(__file__).parents[1] / "twins"
BATCH = 24
ASKED, FITTED, CHOSEN = 7, 3, 5
"""Seeds of the prompts that are reported, that factors are fitted on, and that controls are chosen on."""
TRIALS = 8
"""Prompts that the best control is chosen on."""
KEY = ("group", "name", "twin", "weights", "steps", "guidance", "seed", "size", "on")
"""What tells one row from another."""


@dataclass(frozen=True)
class Setting:
    """A twin and how it samples; None leaves what its recipe says.

    Attributes:
        twin: or "tiny", the embedded model.
        seed: of the first picture.
        stages: that the uncached run has too.
        part: of the prompts that are asked for.
        calibration: how many prompts factors are fitted on.
    """

    twin: str
    steps: int | None = None
    guidance: float | None = None
    seed: int = 1000
    size: str | None = None
    stages: dict[str, Any] = field(default_factory=dict)
    part: float = 1.0
    calibration: int = 16


@dataclass(frozen=True)
class Case:
    """A row to be measured.

    Attributes:
        make: its stack.
        against: the row of its group that it is compared with.
        more: further figures of the stack.
    """

    group: str
    name: str
    make: Callable[[], Stack]
    against: str | None = None
    more: Callable[[Stack], Row] = field(default=lambda stack: {})


class Bench:
    """A setting's prompts and uncached pictures, and the rows that are known of it."""

    def __init__(self, setting: Setting, prompts: int, rows: list[Row]) -> None:
        self.setting, self.rows, self.asked = setting, rows, math.ceil(prompts * setting.part)
        self.twin: Twin | Embedded = Embedded() if setting.twin == EMBEDDED else find(setting.twin)
        self.prompts = self.twin.prompts(self.asked, ASKED)
        changes = {"steps": setting.steps, "guidance": setting.guidance, "size": setting.size}
        embedded = setting.twin == EMBEDDED
        plain = Recipe.read(EMBEDDED if embedded else TWINS / f"{setting.twin}.yaml")
        self.base = plain.with_(
            CASE,
            **({} if embedded else {"model": {"source": str(TWINS / setting.twin)}}),
            **setting.stages,
            sampler={name: value for name, value in changes.items() if value is not None},
            calibration=self.twin.prompts(setting.calibration, FITTED),
            seed=setting.seed,
        )
        self.steps = self.base.sampler.steps
        self.controls = Controls(self.base, self.twin.prompts(TRIALS, CHOSEN))

    @property
    def title(self) -> str:
        sampler = self.base.sampler
        return (
            f"{self.setting.twin}, {sampler.steps} steps, guidance {sampler.guidance or 1:g}, seed {self.setting.seed}"
        )

    @property
    def key(self) -> Row:
        sampler = self.base.sampler
        return {
            "twin": self.setting.twin,
            "weights": weights(self.setting.twin),
            "steps": sampler.steps,
            "guidance": sampler.guidance or 1.0,
            "seed": self.setting.seed,
            "size": self.setting.size or "",
            "on": json.dumps(self.setting.stages),
        }

    @cached_property
    def reference(self) -> dict[str, Any]:
        """Uncached pictures, final latents, and their multiply-accumulates."""

        def make() -> tuple[dict[str, Tensor], Row]:
            images, latents, macs = self.pictures(load(self.base))
            return {"images": images, "latents": latents}, {"macs": macs}

        tensors, figures = kept({**self.key, "prompts": self.prompts}, make)
        return {**tensors, **figures}

    def stack(self, calibration: list[str] | None = None, **stages: Any) -> Stack:
        """The twin with these stages; what is fitted is fitted once for all that decides it."""
        recipe = self.base.with_(None, **stages, **({"calibration": calibration} if calibration else {}))
        fitted = [stage for stage, adapter in recipe.stages() if adapter.wants_factors]
        if fitted:
            said = {**recipe.resolved(), "prompts": None, "seed": None, "weights": weights(self.setting.twin)}
            name = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:24]
            file = str(KEPT / f"factors-{name}.safetensors")
            wanted = {stage: dict(recipe.adapters[stage].unattended) for stage in fitted}
            if "cache" in wanted:
                wanted["cache"]["factors"] = file
            recipe = recipe.with_(None, **wanted)
        return load(recipe)

    def pictures(self, stack: Stack) -> tuple[Tensor, Tensor, int]:
        """Those of every prompt, their final latents, and the multiply-accumulates of all."""
        parts = []
        for at in range(0, len(self.prompts), BATCH):
            part = self.prompts[at : at + BATCH]
            parts.append(stack.sample(part, [self.setting.seed + at + place for place in range(len(part))]))
        images, latents = (torch.cat([getattr(one, name) for one in parts]) for name in ("images", "latents"))
        return images, latents, sum(one.macs for one in parts)

    def elsewhere(self, stack: Stack, count: int = TRIALS) -> float:
        """The mean of decibels of final latents on the prompts that controls are chosen on."""
        prompts, seeds = self.twin.prompts(count, CHOSEN), [5 * self.setting.seed + place for place in range(count)]
        with stack.off():
            aim = stack.sample(prompts, seeds).latents
        made = stack.sample(prompts, seeds).latents  # last: its passes are looked at
        return statistics.fmean(fidelity.decibels(made, aim))

    def row(self, group: str, name: str) -> Row | None:
        """A row of this setting and as many prompts."""
        wanted = {**self.key, "group": group, "name": name, "prompts": self.asked}
        return next((row for row in self.rows if wanted.items() <= row.items()), None)

    def measure(self, case: Case) -> Row:
        """Fidelity to the uncached pictures, agreement with the prompts, likeness to real ones, and the cost."""
        stack = case.make()
        images, latents, macs = self.pictures(stack)
        row: Row = {
            "group": case.group,
            "name": case.name,
            **self.key,
            "samples": samples(self.setting.twin),
            "prompts": self.asked,
            "full": stack.pipe.passes.steps.get("full", self.steps),
            "ran": stack.pipe.passes.steps,
            "shares": stack.pipe.passes.shares,
            "macs_ratio": macs / self.reference["macs"],
            **self.figures(images, latents),
            **case.more(stack),
        }
        against = self.row(case.group, case.against) if case.against else None
        if against is not None and math.isfinite(sum(against["psnr_each"])):
            row |= {"against": case.against, "gain": fidelity.paired(row["psnr_each"], against["psnr_each"])}
        self.rows.append(row)
        return row

    def figures(self, images: Tensor, latents: Tensor) -> Row:
        same = {"psnr_each": fidelity.psnr(images, self.reference["images"])}
        if latents.shape == self.reference["latents"].shape:
            same["latent_each"] = fidelity.decibels(latents, self.reference["latents"])
        rounded = {name: [round(one, 4) for one in each] for name, each in same.items()}
        if self.setting.size is not None:  # what judges pictures knows those of the twin's own size
            return rounded
        agree = statistics.fmean(all(one.values()) for one in self.twin.agreement(images, self.prompts))
        single = images.shape[-1] == 64  # one shape, as the classifier was trained on
        return {**rounded, "agree": agree, **(likeness(images, self.prompts) if single else {})}

    def uncached(self, group: str) -> Case:
        return Case(group, "no cache", lambda: load(self.base), more=lambda stack: of_real_ones(self.asked))

    def as_costly(self, group: str, like: str, label: str, briefly: bool = False) -> Iterator[Case]:
        """What the multiply-accumulates of a row buy otherwise: fewer steps, other solvers, reuse, and a forecast."""
        row = self.row(group, like)
        count = evaluations_of(row["macs_ratio"], self.steps) if row else self.steps
        if count >= self.steps:  # it saves no step, or was not asked for
            return
        yield from self.fewer_steps(group, like, label, count, briefly)
        on_even, on_graded = list(even(self.steps, count)), list(graded(self.steps, count))
        reused = {"method": "svdcache", "schedule": on_even, "predictor": "reuse"}
        if not briefly:
            yield Case(group, f"{label}: reuse of the trunk, {count} full", lambda: self.stack(cache=reused), like)
        for word, full in (("even", on_even), ("graded", on_graded))[briefly:]:
            cache = {"method": "svdcache", "schedule": full}
            name = f"{label}: svdcache, {word}, {count} full"
            yield Case(group, name, lambda cache=cache: self.stack(cache=cache), like)

    def fewer_steps(self, group: str, like: str, label: str, count: int, briefly: bool = False) -> Iterator[Case]:
        """No cache with so many steps: of the own sampler, and of the solver that is best on other prompts."""
        own = self.controls.at(count)[0]  # on the timesteps of the uncached run, for a model that predicts noise
        yield Case(group, f"{label}: control, {count} of its own steps", lambda: load(own.recipe), like)
        if briefly:
            return
        start = f"{label}: best control with {count} steps, "
        known = next((one for one in self.rows if one["name"].startswith(start) and self._same(one, group)), None)
        title = known["name"].removeprefix(start) if known else self.controls.best(count).title
        if title != own.title:
            yield Case(group, start + title, lambda: load(self.controls.best(count).recipe), like)

    def sampled(self, steps: int) -> Stack:
        """The uncached run with fewer steps of its own sampler."""
        return load(self.base.with_(sampler={"steps": steps}))

    def _same(self, row: Row, group: str) -> bool:
        return {**self.key, "group": group, "prompts": self.asked}.items() <= row.items()


class Embedded:
    """The embedded model as a twin, as far as it is asked here."""

    def prompts(self, count: int, seed: int = 0) -> list[str]:
        return shapes.unseen_prompts(count, seed) if seed == ASKED else shapes.seen_prompts(count, seed)

    def agreement(self, made: Tensor, prompts: Sequence[str]) -> list[dict[str, bool]]:
        return ShapesJudge().agreement(made, prompts)


@cache
def weights(twin: str) -> str:
    """What tells one export of a twin from another."""
    folder = FOLDER if twin == EMBEDDED else TWINS / twin
    files = sorted(folder.rglob("*.safetensors"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


@cache
def samples(twin: str) -> int | None:
    """That a twin was trained on when it was exported; unknown of the embedded model."""
    file = TWINS / twin / "scores.json"
    return json.loads(file.read_text())["run"]["samples"] if file.is_file() else None


def share(rank: float) -> str:
    """A rank as a share of the width: D/9."""
    return f"D/{math.floor(1 / rank + 0.5)}"
