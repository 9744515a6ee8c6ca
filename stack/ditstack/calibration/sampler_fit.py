"""Sampler fit: times and coefficients of a multistep sampler, fitted in closed loop to the model that runs.

The loss is the log of the squared distance of the final latent to the converged one, its mean over prompts and the
mean of its worst quarter; its gradient goes back through every evaluation. Prompts that are not fitted to choose the
best iterate and decide whether it is kept (Bespoke Solvers 2310.19075, DC-Solver 2409.03755, S4S 2502.17423).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ditstack.calibration.run import SEED
from ditstack.calibration.trajectories import Grid, converged, differentiable, final_latents, held_whole, read_grid
from ditstack.errors import BadPipeline
from ditstack.maths.fidelity import decibels, paired
from ditstack.maths.multistep import Method, Parameters
from ditstack.pipeline.fitted_scheduler import FittedMultistepScheduler
from ditstack.pipeline.pipe import Pipe
from ditstack.recipe.calibration import Calibration

RATE, TAIL, LOOK = 1e-2, 0.5, 10
"""Adam's learning rate; what the worst quarter counts beside the mean; iterations between looks at other prompts."""
NUDGE, DRAWS = 2e-2, 4
"""Of a gradient without backpropagation: the size of its probes, and how many antithetic pairs of them there are."""
TINY = 1e-20


@dataclass(frozen=True)
class SamplerWish:
    """What is to be fitted.

    Attributes:
        by: "gradient" goes back through the evaluations, "probes" only runs them.
        reference_steps: of the run that counts as converged.
        grid_steps: of the user's own sampler, whose first timestep the fitted one shares: a diffusion process may
            begin elsewhere for every number of steps.
        start: where the fit begins, such as what was fitted to the unrounded weights; None is the better of Euler and
            Adams-Bashforth 2.
    """

    evaluations: int
    iterations: int = 120
    batch: int = 12
    by: str = "gradient"
    reference_steps: int = 100
    grid_steps: int = 50
    start: Method | None = None


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
        self.again = True
        known = calibration.aims
        self.aims = converged(pipe, self.grid, calibration, wish.reference_steps) if known is None else known

    def tensors(self) -> dict[str, Tensor]:
        """The numbers of the best method found: the fitted one, or the one it started from where no gain is sure."""
        starts = {order: self.score(self._parameters(order).method()) for order in (1, 2)}
        order = max(starts, key=lambda one: sum(starts[one]))
        parameters, name = self._parameters(order), "Euler" if order == 1 else "Adams-Bashforth 2"
        start, before = parameters.method(), starts[order]
        if self.wish.start is not None and sum(self.score(self.wish.start)) > sum(before):
            parameters.start_from(self.wish.start)
            start, before, name = self.wish.start, self.score(self.wish.start), "what it started from"
        best = self._descend(parameters, before)
        after = self.score(best)
        mean, low, high = paired(after, before)
        said = f"{mean:+.2f} dB ({low:+.2f} to {high:+.2f}) on {len(self.kept)} prompts that it was not fitted to"
        keep = low > 0
        self.calibration.tell(
            f"sampler of {len(best)} evaluations: {said}, over {name}; {'kept' if keep else 'not kept'}"
        )
        return {key: one.detach() for key, one in (best if keep else start).tensors().items()}

    def score(self, method: Method) -> list[float]:
        """Decibels of the final latents of the prompts that are not fitted to, on the stack as it stands."""
        with torch.no_grad():
            return decibels(self._run(method, list(self.kept)), self.aims[list(self.kept)])

    def _parameters(self, order: int) -> Parameters:
        return Parameters(self.grid.process, self.grid.spread(self.wish.evaluations), self.grid.end, order)

    def _run(self, method: Method, places: list[int]) -> Tensor:
        scheduler = FittedMultistepScheduler.of(method, self.grid.kind, self.grid.train_steps)
        prompts, seeds = [self.calibration.prompts[at] for at in places], [SEED + at for at in places]
        sampler = self.calibration.sampler.changed(steps=len(method))
        return final_latents(self.pipe, scheduler, prompts, seeds, sampler)

    def _descend(self, parameters: Parameters, before: list[float]) -> Method:
        """Adam on batches of the fitted prompts; what does best on the others is the result. A killed fit goes on.

        Args:
            before: what the others score where it starts.
        """
        wish, partial = self.wish, self.calibration.partial
        adam = torch.optim.Adam(parameters.parameters(), lr=RATE, betas=(0.9, 0.95))
        known = partial.of("sampler")
        begun, best = (
            _restore(parameters, adam, known) if known else (0, (sum(before) / len(before), _copy(parameters)))
        )
        self._hold(parameters)
        scores = known.get("scores", torch.zeros(0)).tolist()
        for at in range(begun, wish.iterations):
            for group in adam.param_groups:
                group["lr"] = RATE * (0.5 + 0.5 * math.cos(math.pi * at / wish.iterations))
            adam.zero_grad()
            self._backward(parameters, self._batch(at))
            torch.nn.utils.clip_grad_norm_(parameters.parameters(), 1.0)
            adam.step()
            if (at + 1) % LOOK == 0 or at + 1 == wish.iterations:
                score = sum(self.score(parameters.method())) / len(self.kept)
                best = (score, _copy(parameters)) if score > best[0] else best
                scores.append(score)
                partial.keep("sampler", {**_state(parameters, adam, at + 1, best), "scores": torch.tensor(scores)})
            self.calibration.bar("sampler", at + 1, wish.iterations)
        parameters.load_state_dict(best[1])
        return parameters.method()

    def _batch(self, at: int) -> list[int]:
        draw = torch.Generator().manual_seed(at)
        return torch.randperm(len(self.fitted), generator=draw)[: self.wish.batch].tolist()

    def _hold(self, parameters: Parameters) -> None:
        """Find out whether a gradient may hold all evaluations at once, and run none of them again."""
        if self.wish.by == "gradient":
            self.again = not held_whole(self.pipe, lambda: self._run(parameters.method(), [0]), self.wish.batch)

    def _backward(self, parameters: Parameters, places: list[int]) -> None:
        if self.wish.by == "gradient":
            with differentiable(self.pipe, self.again):
                loss_of(self._run(parameters.method(), places), self.aims[places]).backward()
            return
        flat = torch.nn.utils.parameters_to_vector(parameters.parameters()).detach()
        slope, draw = torch.zeros_like(flat), torch.Generator().manual_seed(places[0] + 1000 * len(places))
        for _ in range(DRAWS):
            probe = NUDGE * torch.randn(flat.shape, generator=draw, dtype=flat.dtype)
            up, down = (self._loss_at(parameters, flat + sign * probe, places) for sign in (1, -1))
            slope += (up - down) / (2 * NUDGE**2) * probe / DRAWS
        torch.nn.utils.vector_to_parameters(flat, parameters.parameters())
        for one, part in zip(parameters.parameters(), _split(slope, parameters), strict=True):
            one.grad = part

    def _loss_at(self, parameters: Parameters, flat: Tensor, places: list[int]) -> float:
        torch.nn.utils.vector_to_parameters(flat, parameters.parameters())
        with torch.no_grad():
            return float(loss_of(self._run(parameters.method(), places), self.aims[places]))


def loss_of(latents: Tensor, aims: Tensor) -> Tensor:
    """The mean over items of the log of the squared distance, and of its worst quarter."""
    each = ((latents.float() - aims.to(latents.device)).square().flatten(1).mean(1) + TINY).log()
    return each.mean() + TAIL * each.topk(max(1, len(each) // 4)).values.mean()


def _split(flat: Tensor, parameters: Parameters) -> Iterator[Tensor]:
    start = 0
    for one in parameters.parameters():
        yield flat[start : start + one.numel()].view_as(one).to(one)
        start += one.numel()


def _copy(parameters: Parameters) -> dict[str, Tensor]:
    return {name: one.detach().clone() for name, one in parameters.state_dict().items()}


def _state(parameters: Parameters, adam: Any, done: int, best: Any) -> dict[str, Tensor]:
    state = {f"now.{name}": one.detach() for name, one in parameters.state_dict().items()}
    for place, one in enumerate(parameters.parameters()):
        moments = adam.state[one]
        state |= {f"adam.{place}.{name}": moments[name] for name in ("step", "exp_avg", "exp_avg_sq")}
    state |= {f"best.{name}": one for name, one in best[1].items()}
    return {**state, "score": torch.tensor(best[0]), "done": torch.tensor(done)}


def _restore(parameters: Parameters, adam: Any, known: dict[str, Tensor]) -> tuple[int, Any]:
    """Where a killed fit stopped: how many iterations it had done, and the best it had found."""
    parameters.load_state_dict({name.removeprefix("now."): one for name, one in known.items() if name[:4] == "now."})
    for place, one in enumerate(parameters.parameters()):
        adam.state[one] = {name: known[f"adam.{place}.{name}"] for name in ("step", "exp_avg", "exp_avg_sq")}
    best = {name.removeprefix("best."): one for name, one in known.items() if name.startswith("best.")}
    return int(known["done"]), (float(known["score"]), best)
