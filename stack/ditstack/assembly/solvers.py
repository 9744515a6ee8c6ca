"""Solvers: schedulers of diffusers made to follow a model's own noise schedule.

diffusers' multistep solvers bring a noise schedule of their own: made from a flow model's configuration they keep a
shift of 1, or take one from the pipeline's defaults, and they round the times that the network is told to whole
thousandths. DDIM divides 1000 by the number of steps and drops the rest. Either way fewer steps look worse than they
are. Here the model's own scheduler says the sigmas, and the solver steps along them.
"""

from __future__ import annotations

import copy
import functools
import inspect
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from ditstack.errors import BadPipeline
from ditstack.maths.schedule import even

NEARLY_NOISE, NEARLY_CLEAN = 1 - 1e-6, 1e-6
"""The sigmas that stand for 1 and 0 where a solver takes their logarithm."""
FIRST = 0.25
"""How far from noise the first sigma lies for a second step, as a share of the second sigma: the correction divides by
the first step's length in log-SNR, which is infinite. On training prompts of the embedded model .2 to .35 was best;
UniPC corrects that step itself and needs none."""
OWN_SCHEDULE = ("use_flow_sigmas", "flow_shift", "use_dynamic_shifting", "use_karras_sigmas")
"""Settings with which a recipe asks for the solver's own noise schedule."""
READ_BY_PIPELINES = (
    "shift",
    "base_shift",
    "max_shift",
    "base_image_seq_len",
    "max_image_seq_len",
    "use_dynamic_shifting",
    "time_shift_type",
)
"""Of the model's own scheduler; pipelines make its arguments of them."""


def solver(kind: Any, own: Any, settings: dict[str, Any], grid: int | None = None) -> Any:
    """A scheduler of class `kind` for a model that came with `own`.

    Args:
        settings: of `kind`; what `own` says and `kind` knows serves otherwise.
        grid: take the timesteps, evenly, from those that `own` has for so many steps.

    Raises:
        BadPipeline: `grid` for a model whose sigmas are not rounded.
    """
    own = getattr(own, "own", own)
    if grid is not None:
        if is_flow(own):
            raise BadPipeline("sampler.grid: a flow model's sigmas are not rounded to timesteps; leave it out")
        return _beside(_on_grid(kind, grid).from_config(own.config, **settings), own)
    if is_flow(own) and not isinstance(own, kind) and not any(name in settings for name in OWN_SCHEDULE):
        if kind.__name__ == "FlowMatchHeunDiscreteScheduler":
            return _beside(_heun_on_flow(kind)(**settings), own)
        if "flow_shift" in inspect.signature(kind.__init__).parameters:
            return _beside(_on_flow(kind)(**{"prediction_type": "flow_prediction", **settings}), own)
    return kind.from_config(own.config, **settings)


def is_flow(scheduler: Any) -> bool:
    """Whether a scheduler integrates a flow, x = (1 - sigma) data + sigma noise, rather than a diffusion process."""
    config = scheduler.config
    if config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction":
        return True
    return type(scheduler).__name__.startswith("FlowMatch")


def _beside(made: Any, own: Any) -> Any:
    """A solver that asks a copy of the model's own scheduler for its sigmas, and shows pipelines its configuration."""
    made.own = copy.deepcopy(own)
    made.register_to_config(**{key: own.config[key] for key in READ_BY_PIPELINES if key in own.config})
    return made


def _set_own(own: Any, steps: int | None, device: Any, **given: Any) -> None:
    """Set the timesteps of the model's own scheduler; it takes no argument that the pipeline left out."""
    own.set_timesteps(steps, device, **{name: one for name, one in given.items() if one is not None})


@functools.cache
def _on_flow(kind: Any) -> Any:
    """A multistep solver in log-SNR, on the sigmas of the flow model's own scheduler."""

    def set_timesteps(
        self: Any,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
        timesteps: Any = None,
    ) -> None:
        _set_own(self.own, num_inference_steps, device, sigmas=sigmas, mu=mu, timesteps=timesteps)
        shifted = {"mu": mu} if self.config.get("use_dynamic_shifting") else {}
        kind.set_timesteps(self, len(self.own.timesteps), device=device, **shifted)
        self.timesteps = self.own.timesteps
        self.sigmas = self.own.sigmas.float().cpu().clone()
        self.sigmas[0].clamp_(max=NEARLY_NOISE)
        if not hasattr(self.config, "final_sigmas_type"):
            self.sigmas[-1].clamp_(min=NEARLY_CLEAN)

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = kind.step(self, *args, **kwargs)
        if kind.__name__ != "UniPCMultistepScheduler":
            self.sigmas[0].clamp_(max=1 - FIRST * (1 - self.sigmas[1]))
        return out

    def _sigma_to_alpha_sigma_t(self: Any, sigma: Tensor) -> tuple[Tensor, Tensor]:
        return 1 - sigma, sigma

    def scale_noise(self: Any, sample: Tensor, timestep: Any, noise: Tensor) -> Tensor:
        return self.own.scale_noise(sample, timestep, noise)

    members = {
        "set_timesteps": set_timesteps,
        "step": step,
        "_sigma_to_alpha_sigma_t": _sigma_to_alpha_sigma_t,
        "scale_noise": scale_noise,
    }
    return _named_as(kind, members)


@functools.cache
def _heun_on_flow(kind: Any) -> Any:
    """Heun's method on the sigmas of the model's own scheduler: n steps are 2 n - 1 passes of the network."""

    def set_timesteps(
        self: Any,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
    ) -> None:
        _set_own(self.own, num_inference_steps, device, sigmas=sigmas, mu=mu)
        kind.set_timesteps(self, len(self.own.timesteps), device)
        sigma, time = self.own.sigmas.float().cpu(), self.own.timesteps
        # whole numbers, which UniPC counts time in, would be taken for places in the schedule
        self.timesteps = torch.cat([time[:1], time[1:].repeat_interleave(2)]).float()
        self.sigmas = torch.cat([sigma[:1], sigma[1:-1].repeat_interleave(2), sigma[-1:]])

    return _named_as(kind, {"set_timesteps": set_timesteps})


@functools.cache
def _on_grid(kind: Any, grid: int) -> Any:
    """A solver of a diffusion process on some of the timesteps that the model's own scheduler has for `grid` steps."""

    def set_timesteps(self: Any, num_inference_steps: int, device: Any = None) -> None:
        kind.set_timesteps(self, num_inference_steps, device=device)
        self.own.set_timesteps(grid, device=device)
        self.timesteps = self.own.timesteps[list(even(grid, num_inference_steps))]
        if hasattr(self, "sigmas"):
            clean = self.alphas_cumprod[self.timesteps.long().cpu()]
            self.sigmas = torch.cat([((1 - clean) / clean).sqrt(), self.sigmas[-1:].float().cpu()])

    def step(self: Any, model_output: Tensor, timestep: Any, *args: Any, **kwargs: Any) -> Any:
        # DDIM goes down by num_train_timesteps // num_inference_steps; from the last timestep, to before the first
        later = self.timesteps[self.timesteps < timestep]
        gap = int(timestep) - (int(later.max()) if len(later) else -1)
        self.num_inference_steps = Fraction(self.config.num_train_timesteps, gap)
        return kind.step(self, model_output, timestep, *args, **kwargs)

    members: dict[str, Any] = {"set_timesteps": set_timesteps}
    if kind.__name__ == "DDIMScheduler":
        members["step"] = step
    return _named_as(kind, members)


def _named_as(kind: Any, members: dict[str, Any]) -> Any:
    """A subclass that calls itself by the name of its kind, as files and reports know it."""
    return type(kind.__name__, (kind,), {**members, "__module__": kind.__module__})
