"""Calibration run: prompts run on a pipe, and what they have told so far on disk: a killed one goes on there."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from ditstack.assembly.sample import Pictures, sample
from ditstack.assembly.scheduler import chosen_scheduler
from ditstack.assembly.solvers import is_flow
from ditstack.errors import BadFile
from ditstack.factors import Factors
from ditstack.files import free_folder, is_there
from ditstack.maths.fidelity import decibels, psnr, relative_l2
from ditstack.maths.schedule import even
from ditstack.maths.trajectory import Trajectory
from ditstack.pipeline.fitted_scheduler import FittedMultistepScheduler
from ditstack.pipeline.pipe import Pipe
from ditstack.recipe.calibration import Calibration, Resumable
from ditstack.recipe.recipe import Sampler

Tell = Callable[[str], None]
Bar = Callable[[str, int, int], None]
"""Told of what is being gathered, how many prompts are done, and of how many."""

SEED = 10_000_000
"""Calibration seeds start here, far from those that pictures are made with."""
CHANGED = 2
"""How many prompts tell what a refit changed."""
FRAMES = 8
"""Frames of a video that are looked at."""
TOGETHER = 4
"""Pictures that are made at once where they are judged."""
UNCACHED = "uncached"
EQUAL = 180.0
"""Decibels of a picture that is equal to its uncached one; what ended in NaN has as many below zero."""
PAUSE = 20
"""Writing what was gathered waits so many times as long as it took the last time."""


class Partial:
    """What a calibration has gathered and fitted so far, in one file that is replaced whole.

    Args:
        path: None keeps nothing.
        conditions: a file that was begun under others is passed over.
        tell: told of a torn file, which is set aside.
    """

    def __init__(
        self,
        path: Path | None = None,
        conditions: Mapping[str, str] | None = None,
        tell: Tell = lambda text: None,
    ) -> None:
        self.path, self.conditions = path, dict(conditions or {})
        self._parts: dict[str, dict[str, Tensor]] = {}
        self._pause = self._saved = 0.0
        if path is not None and is_there(path):
            for name, one in _begun(path, self.conditions, tell).items():
                part, _, inner = name.partition(":")
                self._parts.setdefault(part, {})[inner] = one

    def of(self, part: str) -> dict[str, Tensor]:
        """What was kept of a part; empty where nothing was."""
        return dict(self._parts.get(part, {}))

    def keep(self, part: str, tensors: Mapping[str, Tensor], at_once: bool = False) -> None:
        """Remember a part; written now, or with a later one where the last was written just now."""
        if self.path is None:
            return
        self._parts[part] = dict(tensors)
        if at_once or time.monotonic() - self._saved >= self._pause:
            self._write()

    def finish(self, stage: str, tensors: Mapping[str, Tensor]) -> None:
        """A stage is fitted: what was gathered for it is forgotten, and what was fitted is kept."""
        self._parts = {part: one for part, one in self._parts.items() if part.startswith("fitted ")}
        self.keep(f"fitted {stage}", tensors, at_once=True)

    def fitted(self, stage: str) -> dict[str, Tensor]:
        """What was fitted of a stage before the calibration was killed."""
        return self.of(f"fitted {stage}")

    def drop(self) -> None:
        """The calibration is over."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _write(self) -> None:
        assert self.path is not None
        began = time.monotonic()
        tensors = {f"{part}:{name}": one for part, inner in self._parts.items() for name, one in inner.items()}
        Factors(tensors, self.conditions).save(self.path)
        self._saved = time.monotonic()
        self._pause = PAUSE * (self._saved - began)


@dataclass(frozen=True)
class Within:
    """A part of what a calibration keeps, where names do not meet those of others."""

    whole: Resumable
    name: str

    def of(self, part: str) -> dict[str, Tensor]:
        return self.whole.of(f"{self.name} {part}")

    def keep(self, part: str, tensors: Mapping[str, Tensor], at_once: bool = False) -> None:
        self.whole.keep(f"{self.name} {part}", tensors, at_once)


def _begun(path: Path, conditions: Mapping[str, str], tell: Tell) -> dict[str, Tensor]:
    """What a calibration under the same conditions left; a torn file is set aside and stops nobody."""
    if not path.is_file():
        raise BadFile(f"{path} is not a file, and a calibration keeps its progress there; move it")
    try:
        found = Factors.load(path)
    except BadFile:
        aside = free_folder(path.with_name(f"{path.name}.torn"))
        os.replace(path, aside)
        tell(f"the progress of an earlier calibration is damaged: it is moved to {aside}, and this one starts over")
        return {}
    return found.tensors if found.conditions == conditions else {}


@dataclass
class CalibrationRun:
    """Calibration prompts that can be run on a pipe again and again, always from the same noise."""

    pipe: Pipe
    prompts: Sequence[str]
    sampler: Sampler
    tell: Tell
    bar: Bar = lambda part, done, count: None
    partial: Resumable = field(default_factory=Partial)
    aims: Trajectory | None = None
    spent: Counter[str] = field(default_factory=Counter)

    def latents(self, places: Sequence[int] | None = None) -> Tensor:
        """The final latents of some of the prompts, with the cache as it stands now."""
        return self._made(places or range(len(self.prompts))).latents

    @property
    def decodes(self) -> bool:
        """Whether the pipe makes pictures of its final latents; some leave that to others."""
        return self.pipe.call.get("output_type") != "latent" and getattr(self.pipe.pipeline, "vae", self) is not None

    def pictures(self, places: Sequence[int]) -> Tensor:
        """The pictures of some of the prompts, with the cache as it stands now: of a video, FRAMES of its frames.

        Half precision, since many are kept; the final latents where the pipe decodes none.
        """
        made = self._made(places)
        if not self.decodes:
            return made.latents
        images = made.images
        if images.ndim == 5:
            images = images[:, list(even(images.shape[1], FRAMES))]
        return images.half()

    def uncached_pictures(self, places: Sequence[int]) -> Tensor:
        """The same without the cache."""
        with self.pipe.without_cache():
            return self.pictures(places)

    @property
    def flow(self) -> bool | None:
        """Whether the model integrates a flow; None where its sampler was fitted, so that no other can replace it."""
        own = self.pipe.own_scheduler
        fitted = isinstance(self.pipe.pipeline.scheduler, FittedMultistepScheduler)
        return None if fitted else is_flow(getattr(own, "own", own))

    @contextmanager
    def solved_by(self, sampler: Sampler) -> Iterator[None]:
        """Inside, whatever is made is made by this sampler, in its number of steps.

        Raises:
            BadPipeline: it cannot stand for the pipe's own.
        """
        with self.pipe.sampled_by(self.pipe.own_scheduler):
            scheduler = chosen_scheduler(self.pipe.pipeline, sampler)
        own, self.sampler = self.sampler, sampler
        try:
            with self.pipe.sampled_by(scheduler):
                yield
        finally:
            self.sampler = own

    def _made(self, places: Sequence[int]) -> Pictures:
        count = len(self.prompts)
        prompts, seeds = [self.prompts[place % count] for place in places], [SEED + place for place in places]
        undecoded = {} if self.decodes else {"output_type": "latent"}
        made = sample(self.pipe, prompts, seeds, self.sampler, extra=undecoded)
        self.spent.update(made.seconds)
        return made

    def uncached_latents(self, places: Sequence[int] | None = None) -> Tensor:
        """The same without the cache: what its forecasts aim at."""
        with self.pipe.without_cache():
            return self.latents(places)

    def first(self, count: int, name: str) -> CalibrationRun:
        """A run of the first prompts alone, which keeps what it gathers under a name of its own."""
        return replace(self, prompts=self.prompts[:count], partial=Within(self.partial, name))

    def gather(
        self, part: str, sums: dict[str, Tensor], run: Callable[[range], None], count: int | None = None
    ) -> None:
        """Run the prompts one by one, or `count` of them, from where a killed calibration stopped.

        Args:
            sums: all that the runs add to.
            run: told of the place of one prompt.
        """
        count = len(self.prompts) if count is None else count
        known = self.partial.of(part)
        done = int(known.pop("done", torch.zeros(())))
        sums.update(known)
        for place in range(done, count):
            run(range(place, place + 1))
            self.partial.keep(part, {**sums, "done": torch.tensor(place + 1)})
            self.bar(part, place + 1, count)

    def miss(self) -> float:
        """How far the cache as it stands leads from the uncached final latents, relatively, over a few prompts."""
        places = range(min(CHANGED, len(self.prompts)))
        aim = self.uncached_latents(places)
        return fmean(relative_l2(self.latents(places), aim))


Make = Callable[[Sequence[int]], "Tensor | None"]


class Judge:
    """How near a pipe comes to its uncached pictures, on calibration prompts; what a killed calibration has is kept.

    Args:
        part: of what is kept.
        latents: whether final latents are judged instead; they are in any case where the pipe decodes none.
    """

    def __init__(self, calibration: Calibration, part: str, latents: bool = False) -> None:
        self.calibration, self.part = calibration, part
        self.nearness = decibels if latents or not calibration.decodes else psnr
        self.uncached = calibration.uncached_latents if latents else calibration.uncached_pictures
        self.known = calibration.partial.of(part)

    @property
    def made(self) -> int:
        """How many pictures were made to be judged, before a kill or since."""
        return sum(len(one) for key, one in self.known.items() if not key.startswith(UNCACHED))

    def scores(self, name: str, places: Sequence[int], make: Make) -> list[float]:
        """Of each of some pictures, decibels to the uncached one, of the picture or the final latents.

        Args:
            name: of what is judged; it is made once.
            make: makes some of them; None is one that ended in NaN.
        """
        parts = [places[at : at + TOGETHER] for at in range(0, len(places), TOGETHER)]
        return [one for part in parts for one in self._scores(name, part, make)]

    def _scores(self, name: str, part: Sequence[int], make: Make) -> list[float]:
        key = f"{name} {' '.join(map(str, part))}"
        if key not in self.known:
            aim = self._aim(part)
            made = make(part)
            found = [-EQUAL] * len(part) if made is None else [min(one, EQUAL) for one in self.nearness(made, aim)]
            self._keep(key, torch.tensor(found, dtype=torch.float64))
        return self.known[key].tolist()

    def _aim(self, part: Sequence[int]) -> Tensor:
        key = f"{UNCACHED} {' '.join(map(str, part))}"
        if key not in self.known:
            self._keep(key, self.uncached(part))
        return self.known[key]

    def _keep(self, key: str, one: Tensor) -> None:
        self.known[key] = one
        self.calibration.partial.keep(self.part, self.known)
