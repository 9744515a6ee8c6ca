"""A scheduler of diffusers whose times and coefficients were fitted to a model: `maths.multistep` made runnable.

Any pipeline runs it as its `scheduler`, with or without the rest of ditstack; it saves and loads as schedulers do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.outputs import BaseOutput
from torch import Tensor

from ditstack.errors import BadPipeline
from ditstack.maths.multistep import Method, Process, advance

FLOW = "flow_prediction"
KINDS = (FLOW, "epsilon", "v_prediction", "sample")


@dataclass
class SchedulerOutput(BaseOutput):
    """What a step gives: the latents at the next time."""

    prev_sample: Tensor


class FittedMultistepScheduler(SchedulerMixin, ConfigMixin):
    """Takes exactly the evaluations that it was fitted for, or the later ones of them (image to image).

    Args:
        times: what the model is told at each evaluation, in its timesteps.
        nodes: sigma of a flow, sigma / alpha of a diffusion process, at each evaluation and after the last.
        coefficients: for each evaluation those of the last model outputs, newest first.
        prediction_type: what the model predicts.
    """

    order = 1

    @register_to_config
    def __init__(
        self,
        times: list[float],
        nodes: list[float],
        coefficients: list[list[float]],
        prediction_type: str = FLOW,
        num_train_timesteps: int = 1000,
    ) -> None:
        if prediction_type not in KINDS:
            raise BadPipeline(f"prediction_type: found {prediction_type!r}; wanted one of {', '.join(KINDS)}")
        numbers = (torch.tensor(one, dtype=torch.float32) for one in (times, nodes, coefficients))
        self.use(Method(*numbers))
        self.num_inference_steps: int | None = None
        self.set_timesteps()

    @classmethod
    def of(cls, method: Method, prediction_type: str, num_train_timesteps: int = 1000) -> FittedMultistepScheduler:
        """With a method's numbers, which may want gradients."""
        times, nodes, coefficients = (one.detach().tolist() for one in method.tensors().values())
        made = cls(times, nodes, coefficients, prediction_type, num_train_timesteps)
        made.use(method)
        return made

    def use(self, method: Method) -> None:
        self.method = method
        self._begin: int | None = None
        self._index: int | None = None
        self._derivatives: list[Tensor] = []

    def __len__(self) -> int:
        return self.config["num_train_timesteps"]

    @property
    def init_noise_sigma(self) -> float:
        return 1.0

    @property
    def derivatives(self) -> list[Tensor]:
        """What the model said so far, as derivatives by s, newest first."""
        return self._derivatives

    @property
    def begin_index(self) -> int | None:
        return self._begin

    @property
    def step_index(self) -> int | None:
        return self._index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Where image to image enters."""
        self._begin = begin_index

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
    ) -> None:
        """Begin a generation. `sigmas` and `mu`, with which pipelines spread their steps, change nothing here.

        Raises:
            BadPipeline: another number of steps than it was fitted for.
        """
        wanted = num_inference_steps or (len(sigmas) if sigmas is not None else len(self.method))
        if wanted != len(self.method):
            raise BadPipeline(
                f"this sampler was fitted to {len(self.method)} evaluations, and the call asks for {wanted}; write "
                f"num_inference_steps={len(self.method)}, or fit another with `evaluations: {wanted}`"
            )
        self.num_inference_steps = wanted
        self.timesteps, self.sigmas = self.method.times.to(device), self.method.nodes.to(device)
        self._begin = self._index = None
        self._derivatives = []

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        return sample

    def index_for_timestep(self, timestep: Any, timesteps: Tensor | None = None) -> int:
        """The place of a timestep that `set_timesteps` gave."""
        known = (self.timesteps if timesteps is None else timesteps).detach()
        return int((known - torch.as_tensor(timestep).detach().to(known)).abs().argmin())

    def step(
        self, model_output: Tensor, timestep: Any, sample: Tensor, return_dict: bool = True
    ) -> SchedulerOutput | tuple[Tensor]:
        """From the latents at `timestep` to those at the next."""
        if self._index is None:
            self._index = self.index_for_timestep(timestep) if self._begin is None else self._begin
        here, there = self.sigmas[self._index], self.sigmas[self._index + 1]
        x, out = sample.float(), model_output.float()
        newest = derivative(out, x, here, self.config["prediction_type"])
        self._derivatives = [newest, *self._derivatives][: self._memory]
        move = (there - here) * advance(self._derivatives, self._row(self._index, len(self._derivatives)))
        after = in_coordinates(x, here, self.config["prediction_type"]) + move
        if self.config["prediction_type"] != FLOW:
            after = after / (1 + there**2).sqrt()
        self._index += 1
        after = after.to(model_output.dtype)
        return SchedulerOutput(prev_sample=after) if return_dict else (after,)

    def _row(self, index: int, known: int) -> Tensor:
        """The coefficients of a step; one that was entered part-way gives what it lacks to the oldest output it has."""
        row = self.method.coefficients[index].to(self.sigmas.device)
        missing = min(index + 1, self._memory) - known
        if missing <= 0:
            return row
        return torch.cat([row[: known - 1], row[known - 1 :].sum().reshape(1)])

    @property
    def _memory(self) -> int:
        """How many outputs a step reads."""
        return self.method.coefficients.shape[1]

    def scale_noise(self, sample: Tensor, timestep: Any, noise: Tensor) -> Tensor:
        """The clean `sample` with as much noise as there is at `timestep`, a scalar or one for each item."""
        places = [self.index_for_timestep(one) for one in torch.as_tensor(timestep).reshape(-1)]
        s = torch.stack([self.sigmas[place] for place in places]).to(sample).reshape(-1, *[1] * (sample.ndim - 1))
        if self.config["prediction_type"] == FLOW:
            return s * noise + (1 - s) * sample
        return (sample + s * noise) / (1 + s**2).sqrt()

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Any) -> Tensor:
        """The same, under the name and in the order that schedulers of diffusion processes have."""
        return self.scale_noise(original_samples, timesteps, noise)


def in_coordinates(x: Tensor, s: Tensor, kind: str) -> Tensor:
    """Latents where the ODE is integrated: x of a flow, x / alpha of a diffusion process, alpha = (1 + s^2)^-1/2."""
    return x if kind == FLOW else x * (1 + s**2).sqrt()


def derivative(out: Tensor, x: Tensor, s: Tensor, kind: str) -> Tensor:
    """dx / d sigma of a flow; the predicted noise, dy / ds, of a diffusion process, of what its model says at x."""
    if kind in (FLOW, "epsilon"):
        return out
    alpha, sigma = 1 / (1 + s**2).sqrt(), s / (1 + s**2).sqrt()
    return alpha * out + sigma * x if kind == "v_prediction" else (x - alpha * out) / sigma


def output_of(derivative: Tensor, x: Tensor, s: Tensor, kind: str) -> Tensor:
    """What a model says at x that has this derivative: the inverse of `derivative`."""
    if kind in (FLOW, "epsilon"):
        return derivative
    alpha, sigma = 1 / (1 + s**2).sqrt(), s / (1 + s**2).sqrt()
    return (derivative - sigma * x) / alpha if kind == "v_prediction" else (x - sigma * derivative) / alpha


def process_of(scheduler: Any) -> tuple[Process, str]:
    """The process that a scheduler of diffusers integrates, and what its model predicts.

    Raises:
        BadPipeline: its timesteps say nothing of its noise.
    """
    train = scheduler.config.get("num_train_timesteps", 1000)
    kind = scheduler.config.get("prediction_type", "epsilon")
    # a flow of UniPC or DPM-Solver++ carries the alphas of a diffusion process that it does not integrate
    if "Flow" in type(scheduler).__name__ or kind == FLOW:
        return Process(train), FLOW
    if hasattr(scheduler, "alphas_cumprod") and kind in KINDS[1:]:
        kept = scheduler.alphas_cumprod.double()
        return Process(train, ((1 - kept) / kept).sqrt()), kind
    raise BadPipeline(
        f"the noise of a {type(scheduler).__name__} cannot be read from its timesteps; wanted a flow "
        "(FlowMatchEuler...) or a diffusion process with alphas_cumprod (DDIM, DPM-Solver++, UniPC)"
    )
