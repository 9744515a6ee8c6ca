"""Gradient: Adam on the sampler's loss, its gradient through every evaluation in closed loop."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ditstack.calibration.sampler.loss import loss_of
from ditstack.calibration.trajectories import differentiable, held_whole
from ditstack.maths.multistep import Method, Parameters

if TYPE_CHECKING:
    from ditstack.calibration.sampler.fit import SamplerFit

RATE, LOOK = 1e-2, 10
"""Adam's learning rate; iterations between looks at other prompts."""
ITERATIONS = 120


class ByGradient:
    """Adam on batches of the fitted prompts; what does best on the others is the result. A killed fit goes on."""

    def __init__(self, fit: SamplerFit) -> None:
        self.fit, self.again = fit, True

    def descend(self, parameters: Parameters, before: list[float]) -> Method:
        """The best method on the prompts that are not fitted to.

        Args:
            before: what they score where it starts.
        """
        fit, partial = self.fit, self.fit.calibration.partial
        iterations = fit.wish.iterations or ITERATIONS
        adam = torch.optim.Adam(parameters.parameters(), lr=RATE, betas=(0.9, 0.95))
        known = partial.of("sampler")
        begun, best = (
            _restore(parameters, adam, known) if known else (0, (sum(before) / len(before), copied(parameters)))
        )
        self.hold(parameters)
        for at in range(begun, iterations):
            for group in adam.param_groups:
                group["lr"] = RATE * (0.5 + 0.5 * math.cos(math.pi * at / iterations))
            adam.zero_grad()
            self.backward(parameters, fit.draw(at, fit.wish.batch))
            torch.nn.utils.clip_grad_norm_(parameters.parameters(), 1.0)
            adam.step()
            if (at + 1) % LOOK == 0 or at + 1 == iterations:
                score = sum(fit.score(parameters.method())) / len(fit.kept)
                best = (score, copied(parameters)) if score > best[0] else best
                partial.keep("sampler", _state(parameters, adam, at + 1, best))
            fit.calibration.bar("sampler", at + 1, iterations)
        parameters.load_state_dict(best[1])
        return parameters.method()

    def hold(self, parameters: Parameters) -> None:
        """Find out whether a gradient may hold all evaluations at once, and run none of them again."""
        fit = self.fit
        self.again = not held_whole(fit.pipe, lambda: fit.run(parameters.method(), [0]), fit.wish.batch)

    def backward(self, parameters: Parameters, places: list[int]) -> None:
        with differentiable(self.fit.pipe, self.again):
            loss_of(self.fit.run(parameters.method(), places), self.fit.aims[places]).backward()


def copied(parameters: Parameters) -> dict[str, Tensor]:
    """Its numbers as they are now."""
    return {name: one.detach().clone() for name, one in parameters.state_dict().items()}


def part(known: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """What was kept under a name."""
    return {key.removeprefix(f"{name}."): one for key, one in known.items() if key.startswith(f"{name}.")}


def _state(parameters: Parameters, adam: Any, done: int, best: Any) -> dict[str, Tensor]:
    state = {f"now.{name}": one for name, one in copied(parameters).items()}
    for place, one in enumerate(parameters.parameters()):
        moments = adam.state[one]
        state |= {f"adam.{place}.{name}": moments[name] for name in ("step", "exp_avg", "exp_avg_sq")}
    state |= {f"best.{name}": one for name, one in best[1].items()}
    return {**state, "score": torch.tensor(best[0]), "done": torch.tensor(done)}


def _restore(parameters: Parameters, adam: Any, known: dict[str, Tensor]) -> tuple[int, Any]:
    """Where a killed fit stopped: how many iterations it had done, and the best it had found."""
    parameters.load_state_dict(part(known, "now"))
    for place, one in enumerate(parameters.parameters()):
        adam.state[one] = part(known, f"adam.{place}")
    return int(known["done"]), (float(known["score"]), part(known, "best"))
