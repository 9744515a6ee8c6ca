"""Scheduler: the one that a recipe's sampler names, made from the model's own; what it does not take is refused."""

from __future__ import annotations

import inspect
from typing import Any

from ditstack.assembly.solvers import is_flow, solver
from ditstack.errors import BadPipeline
from ditstack.pipeline.samplers import OF_THE_PIPELINE
from ditstack.recipe.adapter import suggest
from ditstack.recipe.recipe import Sampler


def check_scheduler(sampler: Sampler) -> None:
    """Refuse what can be known to fail before any weight of the model is loaded.

    Raises:
        BadPipeline: diffusers has no such class, or it does not take a setting.
    """
    if sampler.scheduler is not None:
        _check_settings(named_class(sampler.scheduler), sampler.settings)


def named_class(name: str) -> type:
    """The scheduler class of diffusers.

    Raises:
        BadPipeline: there is none of that name.
    """
    import diffusers
    from diffusers import SchedulerMixin  # pyright: ignore[reportPrivateImportUsage]

    kind = getattr(diffusers, name, None)
    if missing := getattr(kind, "_backends", None):  # what diffusers puts where a package is not installed
        raise BadPipeline(f"sampler.scheduler: {name} needs a package that is not installed: {', '.join(missing)}")
    if not inspect.isclass(kind) or not issubclass(kind, SchedulerMixin):
        known = [one for one in dir(diffusers) if one.endswith("Scheduler")]
        raise BadPipeline(f"sampler.scheduler: diffusers has no scheduler {name!r}; {suggest(name, known)}")
    if lacking := [one for one in ("from_config", "set_timesteps", "step") if not hasattr(kind, one)]:
        raise BadPipeline(f"sampler.scheduler: {name} cannot sample: it has no {', '.join(lacking)}; name another")
    if wanting := _wanted_by_step(kind):
        raise BadPipeline(f"sampler.scheduler: {name} wants {', '.join(wanting)} at each step; name another")
    return kind


def _wanted_by_step(kind: Any) -> list[str]:
    """What a scheduler's step wants beside the model's answer, the timestep and the latents, which is all it gets."""
    known = list(inspect.signature(kind.step).parameters.values())[4:]
    return [one.name for one in known if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]


def chosen_scheduler(pipeline: Any, sampler: Sampler) -> Any:
    """The scheduler to sample with: the pipeline's own where the recipe says nothing, else a new one.

    It has the settings of the pipeline's own where the recipe names none, and its sigmas unless the recipe asks for a
    noise schedule (see `solvers`). The pipeline is not changed.

    Raises:
        BadPipeline: the class does not take a setting, or not this value of it.
    """
    if sampler.scheduler is None and sampler.grid is None and not sampler.settings:
        _check_times(sampler, pipeline, pipeline.scheduler)
        return pipeline.scheduler
    kind: Any = named_class(sampler.scheduler) if sampler.scheduler else type(pipeline.scheduler)
    _check_settings(kind, sampler.settings)
    _check_process(kind, pipeline.scheduler)
    own = {name: value for name, value in sampler.settings.items() if name in _parameters(kind)}
    try:
        made = solver(kind, pipeline.scheduler, own, sampler.grid)
    except (ValueError, TypeError, ArithmeticError, IndexError, NotImplementedError, ImportError) as error:
        raise BadPipeline(f"sampler.settings: a {kind.__name__} cannot be built from {own}: {error}") from error
    _check_times(sampler, pipeline, getattr(made, "own", made))
    made.register_to_config(**{name: value for name, value in sampler.settings.items() if name not in own})
    return made


def _check_times(sampler: Sampler, pipeline: Any, scheduler: Any) -> None:
    """Refuse times that the pipeline's call, or its scheduler, does not take.

    Raises:
        BadPipeline: with which takes none.
    """
    for name in sampler.times:
        for one, method in ((pipeline, type(pipeline).__call__), (scheduler, type(scheduler).set_timesteps)):
            if name not in inspect.signature(method).parameters:
                kind = type(one).__name__
                raise BadPipeline(f"sampler.{name}: a {kind} takes no {name}; leave them out, and write steps")


def _check_process(kind: Any, own: Any) -> None:
    """Refuse a scheduler of a diffusion process for a flow model, and the reverse: it would make noise in silence.

    Raises:
        BadPipeline: with schedulers that fit.
    """
    own = getattr(own, "own", own)
    if isinstance(own, kind):
        return
    flow_alone = kind.__name__.startswith("Flow") or kind.__name__ == "LTXEulerAncestralRFScheduler"
    either = {"flow_shift", "use_flow_sigmas"} & {*_parameters(kind)}
    if not either and flow_alone != is_flow(own):
        words = {True: "a flow", False: "a diffusion process"}
        first = "FlowMatchEulerDiscreteScheduler" if is_flow(own) else "DDIMScheduler"
        raise BadPipeline(
            f"sampler.scheduler: a {kind.__name__} integrates {words[flow_alone]}, and this model is "
            f"{words[is_flow(own)]}, as its own {type(own).__name__} says; name another, such as {first}, "
            "UniPCMultistepScheduler or DPMSolverMultistepScheduler"
        )


def _check_settings(kind: Any, settings: dict[str, Any]) -> None:
    known = _parameters(kind)
    if "mu" in inspect.signature(kind.set_timesteps).parameters:
        known = [*known, *(one for one in OF_THE_PIPELINE if one not in known)]
    unknown = [name for name in settings if name not in known]
    if unknown:
        near = [f"{name}: {suggest(name, known)}" for name in unknown]
        hint = "; ".join(one for one in near if "did you mean" in one)
        raise BadPipeline(
            f"sampler.settings: a {kind.__name__} takes no {', '.join(unknown)}; "
            f"{hint + '; ' if hint else ''}it takes {', '.join(known)}"
        )


def _parameters(kind: Any) -> list[str]:
    """The names of what a scheduler class is made with."""
    return [name for name in inspect.signature(kind.__init__).parameters if name not in ("self", "args", "kwargs")]
