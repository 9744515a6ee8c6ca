"""Memory: what one cache keeps between steps, and the fitted factors that it was given."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Generic, Self, TypeVar

from torch import Tensor

from ditstack.pipeline.pipe import Pipe, StepMemory

Remembered = TypeVar("Remembered", bound=StepMemory)


class CacheMemory(Generic[Remembered]):
    """A cache at work on a pipe: emptied when a generation begins or ends. Several may stand on one pipe.

    Attributes:
        memories: what is kept, by site and guidance branch.
        factors: what was fitted, by name; empty until `take`.
    """

    def __init__(self, pipe: Pipe) -> None:
        assert pipe.policy is not None, "a cache needs a step policy: set pipe.policy first"
        self.pipe, self.passes = pipe, pipe.passes
        self.memories: dict[Hashable, Remembered] = {}
        self.factors: dict[str, Tensor] = {}
        pipe.policy.on_forget.append(self.forget)
        pipe.caches.append(self)

    @classmethod
    def on(cls, pipe: Pipe) -> Self:
        """The one cache of this class that stands on a pipe."""
        (found,) = [one for one in pipe.caches if type(one) is cls]
        return found

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Use these factors from the next generation on, in place of those before."""
        self.factors = dict(tensors)
        self.forget()
        self.passes.recount()

    @contextmanager
    def trial(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """Inside, these factors are used; afterwards those before, whatever happens."""
        before = self.factors
        self.take(tensors)
        try:
            yield
        finally:
            self.take(before)

    def forget(self) -> None:
        """Drop what is kept."""
        self.memories.clear()
