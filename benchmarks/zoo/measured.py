"""Measured: what a pipeline's blocks really multiply, step by step, by nobody's account but torch's own."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class LinearsOfBlocks(TorchFunctionMode):
    """Multiply-accumulates of the linears inside the transformers' lists of blocks, for each step of the scheduler.

    Refiners of the text or the noise are not counted: they prepare what blocks read, and no cache plans to skip them.

    It sees `torch.nn.functional.linear` itself, with the weights that it is given: a block that is passed over, a
    linear whose product is replaced by a smaller one, both are not there.
    """

    def __init__(self, pipeline: Any) -> None:
        super().__init__()
        self.steps: list[int] = []
        self.made, self.passed = 0, False
        self._weights = {id(one.weight) for one in _linears(pipeline)}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.linear and id(args[1]) in self._weights:
            self.made += args[0].numel() * args[1].shape[0]
        return func(*args, **(kwargs or {}))

    def step(self) -> None:
        """The scheduler has stepped; where it steps several times after one pass, the first is the step."""
        if self.passed:
            self.steps.append(self.made)
        self.made, self.passed = 0, False

    def enter(self, *_: Any) -> None:
        """A transformer is called."""
        self.passed = True


def _transformers(pipeline: Any) -> list[torch.nn.Module]:
    return [one for name in ("transformer", "transformer_2") if (one := getattr(pipeline, name, None)) is not None]


def _linears(pipeline: Any) -> Iterator[torch.nn.Linear]:
    for transformer in _transformers(pipeline):
        for path, module in transformer.named_modules():
            name = path.partition(".")[0]
            listed = isinstance(getattr(transformer, name, None), torch.nn.ModuleList) and "refiner" not in name
            if isinstance(module, torch.nn.Linear) and listed:
                yield module


@contextmanager
def watched(pipeline: Any) -> Iterator[LinearsOfBlocks]:
    """Inside, a call is measured."""
    counter = LinearsOfBlocks(pipeline)
    kind: Any = type(pipeline.scheduler)  # the class, since some pipelines step a copy as well
    before = kind.step

    @functools.wraps(before)  # pipelines look at what it takes
    def step(*args: Any, **kwargs: Any) -> Any:
        out = before(*args, **kwargs)
        counter.step()
        return out

    kind.step = step
    handles = [one.register_forward_pre_hook(counter.enter) for one in _transformers(pipeline)]
    try:
        with counter:
            yield counter
    finally:
        kind.step = before
        for handle in handles:
            handle.remove()
