"""Calibration, as a method sees it that is fitted: prompts to run on the pipe, and a place for what they tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from torch import Tensor

    from ditstack.maths.trajectory import Trajectory
    from ditstack.recipe.recipe import Sampler

NO_PROMPTS = (
    "found no calibration prompts; give some: `calibration:` in the recipe, or `ditstack calibrate` with --prompts FILE"
)


class Resumable(Protocol):
    """What a calibration has gathered so far, on disk: one that was killed goes on from there."""

    def of(self, part: str) -> dict[str, Tensor]:
        """What was kept of a part; empty where nothing was."""
        ...

    def keep(self, part: str, tensors: Mapping[str, Tensor], at_once: bool = False) -> None:
        """Remember a part; written now, or with a later one where the last was written just now."""
        ...


class Calibration(Protocol):
    """Calibration prompts that can be run on a pipe again and again, always from the same noise."""

    @property
    def prompts(self) -> Sequence[str]: ...

    @property
    def sampler(self) -> Sampler: ...

    @property
    def tell(self) -> Callable[[str], None]:
        """Told a sentence of what was found."""
        ...

    @property
    def bar(self) -> Callable[[str, int, int], None]:
        """Told of what is being gathered, how many prompts are done, and of how many."""
        ...

    @property
    def partial(self) -> Resumable: ...

    @property
    def aims(self) -> Trajectory | None:
        """The unaccelerated model's way to its converged latents, where the stage asked for it by `aims_at`.

        None where nothing but a cache makes the stack's answers differ, or where that model is not at hand.
        """
        ...

    def latents(self, places: Sequence[int] | None = None) -> Tensor:
        """The final latents of some of the prompts, with the cache as it stands now.

        Places beyond the last are the prompts again, from other noise.
        """
        ...

    def uncached_latents(self, places: Sequence[int] | None = None) -> Tensor:
        """The same without the cache: what its forecasts aim at."""
        ...

    @property
    def spent(self) -> Mapping[str, float]:
        """Seconds that runs took so far: encode, denoise and decode."""
        ...

    @property
    def decodes(self) -> bool:
        """Whether the pipe makes pictures of its final latents; some leave that to others."""
        ...

    def pictures(self, places: Sequence[int]) -> Tensor:
        """The pictures of some of the prompts, with the cache as it stands now: of a video, some of its frames.

        Half precision; the final latents where the pipe decodes none.
        """
        ...

    def uncached_pictures(self, places: Sequence[int]) -> Tensor:
        """The same without the cache."""
        ...

    def solved_by(self, sampler: Sampler) -> AbstractContextManager[None]:
        """Inside, whatever is made is made by this sampler, in its number of steps.

        Raises:
            BadPipeline: it cannot stand for the pipe's own.
        """
        ...

    @property
    def flow(self) -> bool | None:
        """Whether the model integrates a flow; None where its sampler was fitted, so that no other can replace it."""
        ...

    def first(self, count: int, name: str) -> Self:
        """A run of the first prompts alone, which keeps what it gathers under a name of its own."""
        ...

    def gather(
        self, part: str, sums: dict[str, Tensor], run: Callable[[range], None], count: int | None = None
    ) -> None:
        """Run the prompts one by one, or `count` of them, from where a killed calibration stopped.

        Args:
            sums: all that the runs add to.
            run: told of the place of one prompt.
        """
        ...
