"""Samplers: solvers of a model's own equation, and what words such as "unipc-20" mean: a solver and its steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ditstack.errors import RecipeError

SAMPLER = "sampler"
MOST_STEPS = 1_000
EULER = "FlowMatchEulerDiscreteScheduler"
TIMES = ("sigmas", "timesteps")
"""Fields in which a sampler names the times of its steps."""
OF_THE_PIPELINE = ("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len")
"""Settings that a pipeline reads from its scheduler's config to shift the sigmas by the size of the picture; they are
taken by every scheduler whose `set_timesteps` takes the `mu` that comes of them."""


@dataclass(frozen=True)
class Solver:
    """A way to integrate the model's own equation.

    Attributes:
        word: as in "unipc-20".
        scheduler: its class in diffusers; None is the model's own.
        flow_only: whether it is for flow models alone.
    """

    word: str
    title: str
    scheduler: str | None = None
    settings: tuple[tuple[str, Any], ...] = ()
    flow_only: bool = False

    def steps(self, evaluations: int) -> int:
        """The most steps with at most so many passes of the network; Heun's method takes two a step but the last."""
        return (evaluations + 1) // 2 if self.scheduler == "FlowMatchHeunDiscreteScheduler" else evaluations


SOLVERS = (
    Solver("euler", "Euler"),
    Solver("heun", "Heun", "FlowMatchHeunDiscreteScheduler", flow_only=True),
    Solver("dpm", "DPM-Solver++ 2M", "DPMSolverMultistepScheduler", (("solver_order", 2),)),
    Solver("unipc", "UniPC, order 2", "UniPCMultistepScheduler", (("solver_order", 2),)),
    Solver("unipc3", "UniPC, order 3", "UniPCMultistepScheduler", (("solver_order", 3),)),
    Solver("deis", "DEIS, order 2", "DEISMultistepScheduler", (("solver_order", 2),)),
)
"""`euler` is the model's own scheduler, whatever that is: Euler's method on a flow."""


def replaced(sampler: Mapping[str, Any], solver: Solver, steps: int) -> dict[str, Any]:
    """A recipe's sampler with another solver and number of steps; with its own solver it keeps its settings."""
    dropped = ("scheduler", "settings") if steps == sampler.get("steps") else ("scheduler", "settings", *TIMES)
    found = {key: value for key, value in sampler.items() if key not in dropped}
    settings = sampler.get("settings", {})
    if solver.scheduler != sampler.get("scheduler"):
        settings = {key: value for key, value in settings.items() if key in OF_THE_PIPELINE}
    found |= {"steps": steps, "settings": {**settings, **dict(solver.settings)}}
    return found | ({"scheduler": solver.scheduler} if solver.scheduler else {})


def fewer(sampler: Mapping[str, Any], evaluations: int, flow: bool, own: str = "") -> dict[str, dict[str, Any]]:
    """Samplers of at most so many passes of the network for each branch of guidance, by title.

    A recipe's own with fewer steps, and every solver that can replace it; where its scheduler has settings that others
    do not take, its own alone.

    Args:
        flow: whether the model's scheduler integrates a flow. A diffusion process has integer timesteps, which fewer
            steps then take from the grid of the recipe's own steps.
        own: the class of the scheduler that the model came with, as far as it is known.
    """
    scheduler = sampler.get("scheduler")
    kind = scheduler or own or (EULER if flow else "its own sampler")
    title = "Euler" if kind == EULER else kind.removesuffix("Scheduler")
    solvers = [Solver("own", title, scheduler)]
    if set(sampler.get("settings", {})) <= set(OF_THE_PIPELINE) or scheduler is not None:
        solvers += [one for one in SOLVERS if (flow or not one.flow_only) and one.scheduler != scheduler]
    grid = {} if flow else {"grid": sampler.get("grid", sampler["steps"])}
    return {one.title: {**replaced(sampler, one, one.steps(evaluations)), **grid} for one in solvers}


def named(sampler: Mapping[str, Any], word: str) -> dict[str, Any]:
    """A recipe's sampler as a word says: "unipc-20", "euler-50".

    Raises:
        RecipeError: it names no solver, or no number of steps.
    """
    name, _, count = word.rpartition("-")
    solver = next((one for one in SOLVERS if one.word == name), None)
    if solver is None or not (count.isdecimal() and count.isascii() and 1 <= int(count[:5]) <= MOST_STEPS):
        known = ", ".join(one.word for one in SOLVERS)
        raise RecipeError(
            f"unknown word {word!r} at {SAMPLER}:",
            [f"wanted a solver and its steps, such as unipc-20; solvers: {known}"],
        )
    return replaced(sampler, solver, int(count))


def title(sampler: Mapping[str, Any]) -> str:
    """For people: "20 steps by UniPC, order 2"; the model's own solver is not named."""
    kind, settings = sampler.get("scheduler"), sampler.get("settings", {})
    steps = "1 step" if sampler["steps"] == 1 else f"{sampler['steps']} steps"
    if kind is None:
        return steps
    known = (one.title for one in SOLVERS if one.scheduler == kind and dict(one.settings).items() <= settings.items())
    return f"{steps} by {next(known, kind)}"
