"""Sampler fit: times and coefficients of a multistep sampler, fitted in closed loop to the model that runs.

Its times are searched, its coefficients follow from them by least squares (`search`, `regression`), and from there it
goes down (`probes`, `gradient`). Prompts that are not fitted to choose the best iterate, and decide whether it is kept
in place of the best unfitted solver (Bespoke Solvers 2310.19075, DC-Solver 2409.03755, S4S 2502.17423).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ditstack.calibration.converged import converged
from ditstack.calibration.run import SEED
from ditstack.calibration.sampler.gradient import ByGradient
from ditstack.calibration.sampler.pictures import decoded, painted
from ditstack.calibration.sampler.probes import ByProbes
from ditstack.calibration.sampler.search import Search
from ditstack.calibration.sampler.starts import crowds, starts
from ditstack.calibration.trajectories import Grid, read_grid
from ditstack.errors import BadPipeline
from ditstack.maths.fidelity import decibels, paired
from ditstack.maths.multistep import Method, Parameters
from ditstack.pipeline.pipe import Pipe
from ditstack.recipe.calibration import Calibration

WAYS = {"probes": ByProbes, "gradient": ByGradient}
STARTS_ON = 16
"""Fitted prompts that choose where it starts, at most."""
GIVEN = "what it started from"


@dataclass(frozen=True)
class SamplerWish:
    """What is to be fitted.

    Attributes:
        iterations: of the way down; None for as many as it needs.
        batch: prompts that are run at once.
        by: "probes" only runs the evaluations, "gradient" goes back through them.
        reference_steps: of the run that counts as converged.
        grid_steps: of the user's own sampler, whose first timestep the fitted one shares: a diffusion process may
            begin elsewhere for every number of steps.
        start: one more to begin from, such as what was fitted to the unrounded weights.
        tries: sets of times that are tried before the way down.
    """

    evaluations: int
    iterations: int | None = None
    batch: int = 12
    by: str = "probes"
    reference_steps: int = 100
    grid_steps: int = 50
    start: Method | None = None
    tries: int = 100


class SamplerFit:
    """One fit on one pipe, towards the calibration's aims; where it has none, towards what the pipe itself tends to."""

    def __init__(self, pipe: Pipe, calibration: Calibration, wish: SamplerWish) -> None:
        self.pipe, self.calibration, self.wish = pipe, calibration, wish
        self.grid: Grid = read_grid(pipe, calibration.sampler, wish.grid_steps, calibration.prompts[:1])
        count = len(calibration.prompts)
        if count < 4:
            raise BadPipeline(f"found {count} calibration prompts; a sampler is fitted on at least 4, better 64")
        self.kept = range(count - max(2, count // 4), count)
        self.fitted = range(self.kept.start)
        known = calibration.aims
        self.trajectory = converged(pipe, self.grid, calibration, wish.reference_steps) if known is None else known
        self.aims = torch.cat([self._decoded(batch) for batch in self.batches(range(count))])

    def tensors(self) -> dict[str, Tensor]:
        """The numbers of the best method found: the fitted one, or the unfitted one where no gain is sure."""
        name, unfitted = self.start()
        before = self.score(unfitted)
        start, reached = self.nearest(unfitted)
        if sum(reached) <= sum(before):
            start, reached = unfitted, before
        parameters = Parameters(self.grid.process, start.times, self.grid.end)
        parameters.start_from(start)
        best = WAYS[self.wish.by](self).descend(parameters, reached)
        mean, low, high = paired(self.score(best), before)
        said = f"{mean:+.2f} dB ({low:+.2f} to {high:+.2f}) on {len(self.kept)} prompts that it was not fitted to"
        keep = low > 0
        self.calibration.tell(
            f"sampler of {len(best)} evaluations: {said}, over {name}; {'kept' if keep else 'not kept'}"
        )
        return {key: one.detach() for key, one in (best if keep else unfitted).tensors().items()}

    def nearest(self, unfitted: Method) -> tuple[Method, list[float]]:
        """The method whose coefficients follow by regression from the best times found, and what it scores."""
        if not self.wish.tries:
            return unfitted, self.score(unfitted)
        stood = self.grid.process.of(unfitted.nodes[:-1].double())
        begun = [*crowds(self.grid, self.wish.evaluations).values(), stood]
        found = Search(self, self.wish.tries).best(begun)
        return found, self.score(found)

    def start(self) -> tuple[str, Method]:
        """The best unfitted method, by its title, and by the prompts that are fitted to."""
        wish, places = self.wish, list(self.fitted)[:STARTS_ON]
        first = self.calibration.prompts[:1]
        found = starts(self.pipe, self.grid, self.calibration.sampler, wish.evaluations, wish.grid_steps, first)
        found |= {GIVEN: wish.start} if wish.start is not None else {}
        best = max(found, key=lambda title: sum(self.score(found[title], places)))
        return best, found[best]

    def score(self, method: Method, places: list[int] | None = None) -> list[float]:
        """Decibels of the pictures, on the stack as it stands.

        Args:
            places: of which prompts; None for those that are not fitted to.
        """
        places = list(self.kept) if places is None else places
        with torch.no_grad():
            return [one for at in self.batches(places) for one in decibels(self.run(method, at), self.aims[at])]

    def run(self, method: Method, places: list[int]) -> Tensor:
        """(B, ...) pictures of some prompts, inside `differentiable` with their graph."""
        sampler = self.calibration.sampler.changed(steps=len(method))
        return painted(self.pipe, self.grid.scheduler(method), *self.of(places), sampler)

    def _decoded(self, places: list[int]) -> Tensor:
        latents = self.trajectory.final[places]
        return decoded(self.pipe, self.grid, latents, *self.of(places), self.calibration.sampler)

    def of(self, places: Sequence[int]) -> tuple[list[str], list[int]]:
        """Prompts and seeds."""
        return [self.calibration.prompts[at] for at in places], [SEED + at for at in places]

    def batches(self, places: Sequence[int]) -> list[list[int]]:
        return [list(places[at : at + self.wish.batch]) for at in range(0, len(places), self.wish.batch)]

    def draw(self, at: int, count: int) -> list[int]:
        """So many of the fitted prompts, others for every iteration."""
        draw = torch.Generator().manual_seed(at)
        return torch.randperm(len(self.fitted), generator=draw)[:count].tolist()

    def turn(self, at: int, count: int) -> list[int]:
        """So many of the fitted prompts, the next ones for every iteration, round and round."""
        count = min(count, len(self.fitted))
        return [(at * count + place) % len(self.fitted) for place in range(count)]
