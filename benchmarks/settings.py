"""The settings with which a peer runs a given number of steps in full; `peers` takes the best on other prompts."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import statistics
from collections.abc import Callable, Iterator
from typing import Any

from ditstack.maths.schedule import even, graded

Setting = dict[str, Any]
"""The cache stage of a recipe, or a job of cache-dit's."""


def schedules(steps: int, count: int) -> dict[str, tuple[int, ...]]:
    """Where cache-dit's mask may put the full steps: evenly, with growing gaps, or densely at first."""
    found = {"even": even(steps, count), "graded": graded(steps, count)}
    rest = even(steps - 3, count - 2)[1:]
    found["first 3, then even"] = (0, 1, 2, *(step + 3 for step in rest))
    return found


def cachedit(steps: int, count: int, forecast: str | None) -> Iterator[tuple[str, Setting]]:
    for label, full in schedules(steps, count).items():
        for order in (1, 2) if forecast == "taylorseer" else (1,):
            text = f"F1B0, static mask, {label}" + (f", order {order}" if forecast == "taylorseer" else "")
            yield text, {"full": list(full), "steps": steps, "forecast": forecast, "order": order}


def taylorseer(steps: int, count: int, lite: bool) -> Iterator[tuple[str, Setting]]:
    """Every warm-up with the shortest interval at which diffusers runs `count` steps in full, in two orders."""
    for warmup in range(1, min(5, count)):
        intervals = (one for one in range(2, steps) if _taylorseer_runs(steps, warmup, one) == count)
        interval = next(intervals, None)
        for order in (1, 2) if interval else ():
            fields = {"warmup": warmup, "interval": interval, "order": order}
            label = ", ".join(f"{key} {value}" for key, value in fields.items())
            yield label, {"method": "taylorseer", **fields, "lite": lite}


def _taylorseer_runs(steps: int, warmup: int, interval: int) -> int:
    """How many steps diffusers runs in full."""
    return sum(step < warmup or (step - warmup - 1) % interval == 0 for step in range(steps))


def fbcache(count: int, ran: Callable[[Setting], float]) -> Iterator[tuple[str, Setting]]:
    """The threshold at which it runs `count` steps in full on the average."""
    found = _threshold(count, lambda threshold: ran({"method": "fbcache", "threshold": threshold}))
    yield f"threshold {found:.4f}", {"method": "fbcache", "threshold": found}


def magcache(
    steps: int, count: int, ratios: list[float], ran: Callable[[Setting], float]
) -> Iterator[tuple[str, Setting]]:
    """Thresholds that come nearest to `count` full steps, with as many first steps full as is worth trying."""
    found = []
    for first in (1, 3, 5):
        for longest in (steps // count + 2, 2 * steps // count):
            fields = {"method": "magcache", "ratios": ratios, "retention": first / steps, "max_skip": longest}
            threshold = _threshold(count, lambda one, fields=fields: ran({**fields, "threshold": one}))
            setting = {**fields, "threshold": threshold}
            label = f"threshold {threshold:.4f}, max_skip {longest}, first {first} full"
            found.append((abs(ran(setting) - count), label, setting))
    nearest = min(away for away, _, _ in found)
    yield from ((label, setting) for away, label, setting in found if away == nearest)


def decided(method: str, label: str, steps: int) -> Setting:
    """The stage that a label of `fbcache` or `magcache` names, without MagCache's ratios."""
    found = dict(re.findall(r"(threshold|max_skip|first) ([\d.]+)", label))
    stage: Setting = {"method": method, "threshold": float(found["threshold"])}
    if method == "magcache":
        stage |= {"max_skip": int(found["max_skip"]), "retention": int(found["first"]) / steps}
    return stage


def magnitudes(generate: Callable[[Any], None], steps: int) -> list[float]:
    """MagCache's ratios of this model: `generate` runs a generation with the given configuration of diffusers."""
    from diffusers.hooks.mag_cache import MagCacheConfig

    heard = io.StringIO()
    with contextlib.redirect_stdout(heard):
        generate(MagCacheConfig(num_inference_steps=steps, calibrate=True))
    curves = [ast.literal_eval(text) for text in re.findall(r"^\[[-\d., e]+\]$", heard.getvalue(), re.MULTILINE)]
    return [statistics.fmean(at) for at in zip(*curves, strict=True)]


def _threshold(count: int, ran: Callable[[float], float]) -> float:
    """Bisects, on a logarithmic scale, for the threshold that runs nearest to `count` steps in full."""
    low, high = 1e-3, 10.0
    tried: dict[float, float] = {}
    for _ in range(8):
        middle = (low * high) ** 0.5
        tried[middle] = ran(middle)
        if tried[middle] == count:
            return middle
        low, high = (middle, high) if tried[middle] > count else (low, middle)
    return min(tried, key=lambda one: abs(tried[one] - count))
