"""Departures: where a call of the pipeline leaves what its stages' factors were fitted at. It is said, or refused."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import Any

from ditstack.errors import StaleFactors
from ditstack.pipeline.pipe import Pipe

LOG = logging.getLogger("ditstack")
OWN = "the pipeline's own"
CALLED = ("steps", "guidance", "size", "frames")
"""Fields of the sampler that a call may change."""


class Departures:
    """Looks at every call of a pipeline, whoever makes it, before it begins. Each sentence is logged once.

    Attributes:
        notes: of the present or last call.
        seen: of all calls.
    """

    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe
        self.notes: list[str] = []
        self.seen: list[str] = []
        self._told_by_arguments = False
        pipe.clock.before_call.append(self._look)
        pipe.clock.on_return.append(self._look_back)

    def _look(self, arguments: Mapping[str, Any]) -> None:
        """A call is about to begin.

        Raises:
            StaleFactors: a stage says that it matters.
        """
        self._told_by_arguments = bool(arguments)
        self.notes = []
        self._say(departures(self.pipe, asked(self.pipe, arguments)))

    def _look_back(self) -> None:
        """A denoising loop of the user's own has no arguments: its steps are known when it has ended."""
        clock = self.pipe.clock
        if clock.whole and clock.planned and not self._told_by_arguments:
            if getattr(self.pipe.pipeline.scheduler, "order", 1) == 1:
                self._say(_told(self.pipe, {"steps": str(clock.planned)}))

    def _say(self, notes: Mapping[str, str]) -> None:
        self.notes = [*notes.values()]
        for note in self.notes:
            if note not in self.seen:
                LOG.warning(note)
                self.seen.append(note)


def departures(pipe: Pipe, now: Mapping[str, str]) -> dict[str, str]:
    """A sentence for each of steps, guidance, size and frames that a call leaves.

    Args:
        now: what the call asks for, where that is known.

    Raises:
        StaleFactors: a stage says that it matters.
    """
    told = _told(pipe, now)
    if held := sorted(pipe.fitted_for & told.keys()):
        said = "; ".join(told.values())
        raise StaleFactors(f"{said}: they serve no other {', '.join(held)}; run `ditstack calibrate` again")
    return told


def _told(pipe: Pipe, now: Mapping[str, str]) -> dict[str, str]:
    if not pipe.fitted_under.get("sampler.steps"):
        return {}
    own = asked(pipe, _defaults(pipe))
    fitted = {key: pipe.fitted_under.get(f"sampler.{key}") or own.get(key, "") for key in now}
    left = [key for key in now if not _same(fitted[key], now[key])]
    return {
        key: f"factors were fitted at {key} {fitted[key] or OWN}; here it is {now[key] or OWN}"
        for key in CALLED
        if key in left
    }


def asked(pipe: Pipe, arguments: Mapping[str, Any]) -> dict[str, str]:
    """What arguments of a call ask for, in the words of a recipe's sampler; "" where it is nowhere said."""
    found: dict[str, str] = {}
    given = next((one for one in ("sigmas", "timesteps") if arguments.get(one) is not None), None)
    if "num_inference_steps" in arguments:
        found["steps"] = str(len(arguments[given]) if given else arguments["num_inference_steps"])
    for key, name in (("guidance", pipe.guidance), ("frames", "num_frames")):
        if name in arguments:
            found[key] = "" if arguments[name] is None else str(arguments[name])
    if "width" in arguments and not _follows_picture(arguments):
        found["size"] = _size(pipe.pipeline, arguments["width"], arguments.get("height"))
    return found


def _follows_picture(arguments: Mapping[str, Any]) -> bool:
    return arguments.get("image") is not None and arguments["width"] is None


def _size(pipeline: Any, width: Any, height: Any) -> str:
    side, unit = getattr(pipeline, "default_sample_size", None), getattr(pipeline, "vae_scale_factor", None)
    own = side * unit if isinstance(side, int) and isinstance(unit, int) else ""
    sides = [own if one is None else one for one in (width, height)]
    return "" if "" in sides else f"{sides[0]}x{sides[1]}"


def _defaults(pipe: Pipe) -> dict[str, Any]:
    """The arguments of a call that names none: its signature's, under those that the model's stage always gives."""
    known = inspect.signature(type(pipe.pipeline).__call__).parameters.values()
    return {one.name: one.default for one in known if one.default is not one.empty} | dict(pipe.call)


def _same(one: str, other: str) -> bool:
    """Whether two settings are equal: 3 and 3.0 are."""
    try:
        return one == other or float(one) == float(other)
    except ValueError:
        return False
