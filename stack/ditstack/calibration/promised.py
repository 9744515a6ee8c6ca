"""Promised: pictures made under a certificate, each with what it cost, what can be told of it, and what was decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from ditstack.assembly.sample import Pictures, sample
from ditstack.caching.feature_cache import FeatureCache
from ditstack.calibration.certificate import FEWEST, Certificate, said
from ditstack.errors import BadPipeline
from ditstack.maths.fidelity import stills
from ditstack.pipeline.pipe import Pipe
from ditstack.pipeline.samplers import SAMPLER, title
from ditstack.recipe.recipe import Sampler

LATE = "late forecast error"
CERTIFIED, IN_FULL = "certified", "in full"
DIGITS = 4
"""That a score is told with."""
REMEMBERED = 4096
"""Scores of so many pictures tell of a drift; older ones are forgotten."""


class Promised:
    """A pipe under a certificate. A call that the certificate does not cover runs every step."""

    def __init__(self, pipe: Pipe, certificate: Certificate) -> None:
        self.pipe, self.certificate = pipe, certificate
        self.scores: dict[str, list[float]] = {}
        """Of the certified pictures so far."""
        watch(pipe)

    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        sampler: Sampler,
        negative_prompt: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Pictures:
        """As `ditstack.assembly.sample.sample`; each picture says whether it was certified or made in full, and why."""
        others = [*(extra or {}), *(["negative_prompt"] if negative_prompt is not None else [])]
        why = self.certificate.outside(sampler.model_dump(), others)
        with self.pipe.without_cache() if why else nullcontext():
            made = sample(self.pipe, prompts, seeds, sampler, negative_prompt, extra)
        found = scores(self.pipe, made)
        if why:
            found.pop(LATE, None)  # nothing was forecast: what the cache noted is an earlier call's
        for place, one in enumerate(made.each):
            one.decision = f"{self._in_full(sampler)}: {why}" if why else CERTIFIED
            one.scores = {name: each[place] for name, each in found.items()}
        if not why:
            for name, each in found.items():
                self.scores[name] = [*self.scores.get(name, []), *each][-REMEMBERED:]
        return made

    def require_own_sampler(self) -> None:
        """Refuse to take the pipeline, without its stack, for the recipe's baseline where its sampler is another one.

        Raises:
            BadPipeline: the certificate takes another sampler than the recipe.
        """
        if SAMPLER in self.certificate.changes:
            raise BadPipeline(
                f"the certificate takes another sampler than the recipe ({said(self.certificate.changes)}): the "
                "pipeline without its stack is not the baseline then; use `ditstack run --promise --compare`"
            )

    def _in_full(self, sampler: Sampler) -> str:
        """What a call outside of the certificate runs: every step, by the certified solver where it is another one."""
        other = SAMPLER in self.certificate.changes
        return f"{IN_FULL}, {title(sampler.model_dump())}" if other else IN_FULL

    @property
    def notes(self) -> list[str]:
        """The certificate in a sentence, and whether the pictures drift from those that it was made on."""
        drift = self.certificate.drift(self.scores)
        few = len(next(iter(self.scores.values()), [])) < FEWEST
        unsure = [f"under {FEWEST} pictures: whether the prompts are of calibration's kind cannot be told yet"] * few
        return [f"promise: {self.certificate}", *([drift] if drift else unsure)]


def watch(pipe: Pipe) -> None:
    """From now on the pipe's caches note how far their forecasts were off."""
    for one in pipe.caches:
        if isinstance(one, FeatureCache):
            one.watched = True


def scores(pipe: Pipe, made: Pictures) -> dict[str, list[float]]:
    """What can be told of each picture of the last call without its unaccelerated one, by name.

    Of the picture: its mean colour, its contrast, and how much neighbouring pixels differ. Of the cache: how far its
    forecast was off at the last full step, a mean over sites and branches.
    """
    images = stills(made.images).double()
    frames = len(images) // max(1, len(made.images))
    channels = {name: images[:, place].flatten(1).mean(1) for place, name in enumerate(("red", "green", "blue"))}
    detail = (images.diff(dim=-1).abs().flatten(1).mean(1) + images.diff(dim=-2).abs().flatten(1).mean(1)) / 2
    told = {**channels, "contrast": images.flatten(1).std(1), "detail": detail}
    found = {name: one.unflatten(0, (-1, frames)).mean(1) for name, one in told.items()}
    if (late := _late(pipe, len(made.images))) is not None:
        found[LATE] = late
    return {name: [float(f"{value:.{DIGITS}g}") for value in one.tolist()] for name, one in found.items()}


def _late(pipe: Pipe, pictures: int) -> Tensor | None:
    noted = [one for cache in pipe.caches if isinstance(cache, FeatureCache) for one in cache.late.values()]
    each = [one.double().cpu().unflatten(0, (-1, pictures)).mean(0) for one in noted if len(one) % pictures == 0]
    return torch.stack(each).mean(0) if each else None
