"""drift: the blocks rest until the share of noise has fallen by `drift` since they last ran."""

from typing import Annotated, Any, ClassVar

from pydantic import Field

from ditstack import plugin
from ditstack.maths import predictors, schedule


class Drift(plugin.Cache):
    neutral: ClassVar[dict[str, Any] | None] = {"drift": 0.0}

    drift: Annotated[float, Field(ge=0)] = 0.2
    """How far the share of noise falls before every block runs again; 0 runs them on every step."""

    @property
    def knob(self) -> plugin.Knob:
        return plugin.Knob("drift", scales=(0.5, 1.0, 2.0))

    def apply(self, pipe: plugin.Pipe) -> None:
        def kinds(steps: int) -> tuple[str, ...]:
            return schedule.spell(self.full_steps(pipe.pipeline.scheduler.sigmas[:steps]), steps, plugin.REUSED)

        pipe.policy = plugin.StepPolicy(pipe.clock, kinds)
        plugin.cache_trunks(pipe, plugin.FeatureCache(pipe, lambda site: predictors.Reuse()))

    def full_steps(self, sigmas: Any) -> list[int]:
        full = [0]
        for step in range(1, len(sigmas)):
            if sigmas[full[-1]] - sigmas[step] >= self.drift:
                full.append(step)
        return full
