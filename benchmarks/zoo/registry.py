"""Registry: a pipeline class of diffusers in small, by name: real classes, random weights, and what a call is given."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image

Made = tuple[Any, dict[str, Any]]
"""A pipeline, and the arguments of its call besides the steps and the generator."""

CASES: dict[str, Callable[[], Made]] = {}
"""How each case is made; called twice it makes equal weights."""
PROMPT = "a red circle"


def case(*names: str) -> Callable[[Callable[..., Made]], Callable[..., Made]]:
    """Enter a builder under the names of pipeline classes; it is told which of them is asked for."""

    def enter(build: Callable[..., Made]) -> Callable[..., Made]:
        for name in names:
            CASES[name] = lambda name=name: seeded(lambda: build(name))
        return build

    return enter


def seeded(build: Callable[[], Made]) -> Made:
    """Built from one state of the random numbers, with no gate or projection shut."""
    from ditstack.testing.tiny_pipelines.parts import rouse

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline, call = build()
        for part in pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                rouse(part.eval())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, call


def picture(side: int = 32) -> Image.Image:
    """A gradient of colours."""
    ramp = torch.linspace(0, 255, side)
    red, green = ramp.expand(side, side), ramp.view(-1, 1).expand(side, side)
    return Image.fromarray(torch.stack([red, green, red.flip(1)], -1).byte().numpy())


def mask(side: int = 32) -> Image.Image:
    """White in its left half."""
    white = (torch.arange(side) < side // 2).expand(side, side) * 255
    return Image.fromarray(white.byte().numpy())


def video(frames: int, side: int = 32) -> list[Image.Image]:
    """Frames that are all the same."""
    return [picture(side)] * frames


def stand_in(kind: type, **names: Any) -> None:
    """Give the module of a class what an optional package would have brought: ftfy mends text, torchvision resizes."""
    for name, one in names.items():
        setattr(sys.modules[kind.__module__], name, one)


FTFY = SimpleNamespace(fix_text=lambda text: text)


def noise(*shape: int) -> torch.Tensor:
    """The same numbers each time, for embeddings that a text encoder would have made."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape) + sum(shape)))
