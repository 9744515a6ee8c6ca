"""solver: a multistep sampler of few evaluations, its times and coefficients fitted to the model that runs.

x_(i+1) = x_i + h_i sum_k c_ik d_(i-k), d the model's velocity or noise: t_i, c_ik and an offset of the time that the
model is told are fitted in closed loop, through all evaluations (Bespoke Solvers 2310.19075, S4S 2502.17423). No weight
is trained: a file of a few dozen numbers, refitted wherever the weights are rounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from ditstack.plugin import Adapter, Knob

if TYPE_CHECKING:
    from torch import Tensor

    from ditstack.plugin import Calibration, Pipe


class FittedSolver(Adapter):
    """A few-step student without new weights; calls of another number of steps are refused."""

    fits_last: ClassVar[bool] = True
    trial: ClassVar[dict[str, Any]] = {"evaluations": 3, "iterations": 2, "tries": 1, "batch": 2, "calibrate": "auto"}
    unattended: ClassVar[dict[str, Any]] = {"calibrate": "auto"}
    incidental: ClassVar[frozenset[str]] = frozenset({"calibrate"})
    sampler_from: ClassVar[tuple[str, ...]] = ("evaluations",)

    evaluations: Annotated[int, Field(ge=2, le=100)] = 9
    """How many times the transformer is evaluated for each guidance branch: the sampler's steps."""
    fit_by: Literal["probes", "gradient"] = "probes"
    """`probes` moves each number a little and runs the rest again; `gradient` goes back through all evaluations."""
    iterations: Annotated[int, Field(ge=1)] | None = None
    """Steps of the fit: of Gauss-Newton by probes, of Adam by gradients; null is 4 of the one, 120 of the other."""
    tries: Annotated[int, Field(ge=0)] = 100
    """Sets of times that are tried first, each with coefficients by least squares; 0 begins as a known solver."""
    batch: Annotated[int, Field(ge=1)] = 12
    """Prompts that the fit runs at once; memory grows with it."""
    aim: Literal["plain", "stack"] = "plain"
    """What the fit works towards: the converged latents of the plain model, loaded once more before weights are rounded
    or attention is replaced, or those of the stack as it stands, where the plain model does not fit into memory."""
    baseline_steps: Annotated[int, Field(ge=1)] = 50
    """Steps of the baseline that the stack is measured against, with the model's own scheduler."""
    calibrate: Literal["auto", "never"] = "never"
    """What to do where its numbers are missing or stale: fit them now, or refuse."""

    @property
    def wants_factors(self) -> bool:
        return True

    @property
    def sampler(self) -> dict[str, Any]:
        return {"steps": self.evaluations}

    @property
    def schedule_steps(self) -> int | None:
        return self.evaluations

    @property
    def fitted_for(self) -> frozenset[str]:
        """Its times and coefficients are one row for each evaluation."""
        return frozenset({"steps"})

    @property
    def knob(self) -> Knob:
        return Knob(
            "evaluations", (12, 9, 7, 5), beside={"iterations": 2, "tries": 15}, of_base={"baseline_steps": "steps"}
        )

    @property
    def aims_at(self) -> int:
        from ditstack.plugin import SamplerWish

        return SamplerWish.reference_steps if self.aim == "plain" else 0

    @property
    def baseline(self) -> dict[str, Any] | None:
        return {"steps": self.baseline_steps}

    def apply(self, pipe: Pipe) -> None:
        """Nothing yet: the numbers are fitted to all that stands, or read, before the first picture."""
        from ditstack.plugin import process_of

        process_of(pipe.pipeline.scheduler)

    def fit(self, pipe: Pipe, calibration: Calibration) -> dict[str, Tensor]:
        """Times, nodes and coefficients."""
        from ditstack.plugin import SamplerFit, SamplerWish

        wish = SamplerWish(
            self.evaluations,
            self.iterations,
            self.batch,
            self.fit_by,
            grid_steps=self.baseline_steps,
            tries=self.tries,
        )
        return SamplerFit(pipe, calibration, wish).tensors()

    def take(self, pipe: Pipe, tensors: dict[str, Tensor]) -> None:
        from ditstack.maths.multistep import Method
        from ditstack.plugin import FittedMultistepScheduler, process_of

        own = pipe.pipeline.scheduler
        kind, train = process_of(own)[1], own.config["num_train_timesteps"]
        pipe.pipeline.scheduler = FittedMultistepScheduler.of(Method(**tensors), kind, train)
