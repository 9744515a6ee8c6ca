"""What stacks make of many prompts, and the two references that everything is measured against.

The *uncached* pictures are the user's own output without a cache: the same sampler and number of steps. The *converged*
ones are what the sampler tends to: 400 steps of the same model. Both are kept in benchmarks/.references, by everything
that decides them, so that benchmarks share them and go on where they were cut off.
"""

from __future__ import annotations

import functools
import hashlib
import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from ditstack.files import write_atomically
from ditstack.maths import fidelity
from ditstack.pipeline.pipe import FULL
from ditstack.recipe.recipe import Recipe
from ditstack.report import versions
from ditstack.stack import Stack, load

BATCH = 16
CONVERGED = 400
KEPT = Path(__file__).parent / ".references"


def sampled(stack: Stack, prompts: list[str], first_seed: int = 1000) -> tuple[Tensor, Tensor]:
    """Pictures and final latents of every prompt."""
    made = []
    for at in range(0, len(prompts), BATCH):
        part = prompts[at : at + BATCH]
        made.append(stack.sample(part, [first_seed + at + place for place in range(len(part))]))
    return torch.cat([one.images for one in made]), torch.cat([one.latents for one in made])


@dataclass
class References:
    """Prompts with their seeds, and what they look like uncached and converged."""

    prompts: list[str]
    first_seed: int
    uncached: Tensor
    converged: Tensor | None
    latents: Tensor
    """Final ones of the uncached run."""
    macs: int
    """Of one uncached picture."""

    @property
    def seeds(self) -> list[int]:
        return [self.first_seed + place for place in range(len(self.prompts))]

    @classmethod
    def of(cls, base: dict[str, Any], prompts: list[str], first_seed: int = 1000, later: bool = False) -> References:
        """Of a resolved recipe; only its model and sampler count.

        Args:
            later: do without the converged pictures where they are not there yet.
        """
        uncached, latents = _plain(base, base["sampler"]["steps"], prompts, first_seed)
        there = all(is_kept(said) for said, _, _ in _batches(base, CONVERGED, prompts, first_seed))
        converged = _plain(base, CONVERGED, prompts, first_seed)[0] if there or not later else None
        return cls(prompts, first_seed, uncached, converged, latents, _macs(base))

    def first(self, count: int) -> References:
        """Those of the first prompts."""
        converged = None if self.converged is None else self.converged[:count]
        return References(
            self.prompts[:count], self.first_seed, self.uncached[:count], converged, self.latents[:count], self.macs
        )

    def figures(self, images: Tensor) -> dict[str, list[float]]:
        """Every picture's PSNR to both references, and its SSIM to the uncached one."""
        found = {"psnr_each": fidelity.psnr(images, self.uncached), "ssim_each": fidelity.ssim(images, self.uncached)}
        return found if self.converged is None else {**found, "converged_each": fidelity.psnr(images, self.converged)}


@dataclass
class Outcome:
    """Pictures, the steps that ran in full (a mean over prompts, the least, the most), the cost, and steps by kind.

    Attributes:
        macs_ratio: multiply-accumulates as a share of the plain model's with all steps of the references.
    """

    images: Tensor
    full: tuple[float, ...]
    macs_ratio: float
    kinds: dict[str, int]


def painted(recipe: Recipe, references: References) -> Outcome:
    """Run a recipe on the prompts of the references. A cache that decides for the whole batch gets one at a time."""
    resolved = recipe.resolved()
    said = {stage: resolved[stage] for stage, _ in recipe.stages()} | {"sampler": resolved["sampler"]}
    if "cache" in said:  # where factors lie decides nothing
        said["cache"] = {key: value for key, value in said["cache"].items() if key != "factors"}
    return outcome(said, references, lambda: _paint(recipe, references))


def outcome(said: dict[str, Any], references: References, make: Callable[[], Outcome]) -> Outcome:
    """Made once for everything that decides it, so that figures can be taken again."""

    def parts() -> tuple[dict[str, Tensor], dict[str, Any]]:
        made = make()
        return {"images": made.images}, {"full": made.full, "macs_ratio": made.macs_ratio, "kinds": made.kinds}

    asked = {"said": said, "prompts": references.prompts, "seed": references.first_seed}
    tensors, figures = kept(asked, parts)
    return Outcome(tensors["images"], tuple(figures["full"]), figures["macs_ratio"], figures["kinds"])


def _paint(recipe: Recipe, references: References) -> Outcome:
    stack, images, full, spent = load(recipe), [], [], 0
    together = BATCH if all(adapter.per_item for _, adapter in recipe.stages()) else 1
    for at in range(0, len(references.prompts), together):
        made = stack.sample(references.prompts[at : at + together], references.seeds[at : at + together])
        tally = stack.pipe.passes.kinds
        images.append(made.images)
        full += [tally[FULL] * stack.pipe.clock.steps / tally.total()] * len(made.images)
        spent += made.macs
    ran = (statistics.fmean(full), min(full), max(full))
    whole = references.macs * len(references.prompts)
    return Outcome(torch.cat(images), ran, spent / whole, stack.pipe.passes.steps)


def kept(said: dict[str, Any], make: Callable[[], tuple[dict[str, Tensor], dict[str, Any]]]) -> tuple[Any, Any]:
    """What `make` gives, tensors and other figures; made once for everything that decides it, as it is `said`.

    The embedded model's weights and torch's version are always said.
    """
    text = json.dumps([said, _weights(), versions()["torch"]], sort_keys=True)
    file = KEPT / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.safetensors"
    if not file.is_file():
        tensors, figures = make()
        blob = save({name: one.contiguous() for name, one in tensors.items()}, {"figures": json.dumps(figures)})
        write_atomically(file, blob)
    with safe_open(file, "pt") as found:
        return {name: found.get_tensor(name) for name in found.keys()}, json.loads(found.metadata()["figures"])


def is_kept(said: dict[str, Any]) -> bool:
    """Whether it was made already."""
    text = json.dumps([said, _weights(), versions()["torch"]], sort_keys=True)
    return (KEPT / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.safetensors").is_file()


def _plain(base: dict[str, Any], steps: int, prompts: list[str], first_seed: int) -> tuple[Tensor, Tensor]:
    """Pictures and latents of the plain model with so many steps, each batch made once."""
    stack: Stack | None = None
    parts = []
    for said, part, seed in _batches(base, steps, prompts, first_seed):

        def make(part: list[str] = part, seed: int = seed) -> tuple[dict[str, Tensor], dict[str, Any]]:
            nonlocal stack
            stack = stack or load(Recipe.parse(_bare(base, steps), f"{steps} steps"))
            images, latents = sampled(stack, part, seed)
            return {"images": images, "latents": latents}, {}

        parts.append(kept(said, make)[0])
    return torch.cat([one["images"] for one in parts]), torch.cat([one["latents"] for one in parts])


def _macs(base: dict[str, Any]) -> int:
    """What an uncached picture costs."""

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        stack = load(Recipe.parse(_bare(base, base["sampler"]["steps"]), "uncached"))
        stack.sample(list(base.get("prompts", ["a red circle"]))[:1])  # DiT knows its classes alone
        return {}, {"macs": stack.pipe.passes.macs}

    return kept({"macs of": _bare(base, base["sampler"]["steps"])}, make)[1]["macs"]


def _batches(
    base: dict[str, Any], steps: int, prompts: list[str], first_seed: int
) -> Iterator[tuple[dict[str, Any], list[str], int]]:
    for at in range(0, len(prompts), BATCH):
        part = prompts[at : at + BATCH]
        yield {"recipe": _bare(base, steps), "prompts": part, "seed": first_seed + at}, part, first_seed + at


def _bare(base: dict[str, Any], steps: int) -> dict[str, Any]:
    return {"model": base["model"], "sampler": {**base["sampler"], "steps": steps}}


@functools.cache
def _weights() -> str:
    """What tells the embedded model's weights from others."""
    from ditstack_adapters.model.tiny import FOLDER

    file = FOLDER / "transformer" / "diffusion_pytorch_model.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest()
