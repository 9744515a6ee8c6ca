"""What is asked of a twin: parts that are trained, a training loss, a pipeline to ship, and a judge of its pictures."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor

NAMES = ("dit", "flux2", "pixart", "hunyuanvideo")

# B pictures


class Learner(Protocol):
    """What training knows of a twin."""

    muon_rate: float
    """Learning rate of the blocks' matrices; all else takes AdamW."""

    def painter(self) -> Any:
        """A module of everything that is trained, with random weights; its `transformer` has the blocks."""
        ...

    def batch(self, seen: int) -> int:
        """Samples of a training step after so many samples."""
        ...

    def loss(self, painter: Any, rng: np.random.Generator, size: int, seen: int) -> tuple[Tensor, Tensor]:
        """Noise levels in [0, 1] and errors (B,) of freshly drawn samples."""
        ...


class Twin(Learner, Protocol):
    """One family. Its pictures are (B, 3, H, W) in [0, 1], its videos (B, F, 3, H, W)."""

    name: str
    guidance: float
    steps: int
    """Of the sampler that its recipe names."""
    settings: tuple[tuple[int, float], ...]
    """Steps and guidance of every score on its card."""

    def pipeline(self, painter: Any) -> Any:
        """The diffusers pipeline of trained parts."""
        ...

    def prompts(self, count: int, seed: int = 0) -> list[str]:
        """What to paint for a score; combinations that training never drew, where there are captions."""
        ...

    def paint(self, pipe: Any, prompts: Sequence[str], steps: int, guidance: float, seeds: Sequence[int]) -> Tensor:
        """Pictures or videos, one a prompt, as the recipe makes them."""
        ...

    def agreement(self, made: Tensor, prompts: Sequence[str]) -> list[dict[str, bool]]:
        """For each, every attribute that its prompt names and whether the checker sees it."""
        ...


def find(name: str) -> Twin:
    """The twin of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in NAMES:
        raise ValueError(f"found the twin {name!r}; wanted one of {', '.join(NAMES)}")
    return importlib.import_module(f"twinning.{name}").TWIN
