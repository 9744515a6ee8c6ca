"""How our own work grows: time and memory against tokens, batch and rank, on a narrow FLUX with random weights.

    python benchmarks/scaling.py [--tokens 256 512 1024 2048 4096 8192] [--batch 1 2 4 8] [--rank 8 16 32 64]

Our own work is what a forecast step takes beyond the same pass without its blocks, and what a calibrated step takes in
its products. Its exponent is the slope of log seconds over log size: 1 is linear. Writes
benchmarks/results/<machine>_<date>/scaling.json after every point, and docs/scaling.png.
"""

from __future__ import annotations

import argparse
import math
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ditstack.assembly.build import build
from ditstack.pipeline.clock import now
from ditstack.pipeline.pipe import Pipe
from ditstack.recipe.recipe import Recipe
from gpu_timing import generate, random_factors
from limits import Ceilings, ceilings, floors, kept_bytes
from models import embeddings, flux
from results import write

PLOT = Path(__file__).parents[1] / "docs" / "scaling.png"
WIDTH, TEXT = 128, 64
STEPS = 8
REPEATS = 5
CACHES: dict[str, dict[str, Any]] = {
    "forecast": {"method": "svdcache", "interval": 4},
    "calibrated": {"method": "icc", "interval": 4},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096, 8192])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rank", type=int, nargs="+", default=[8, 16, 32, 64])
    wanted = parser.parse_args()
    top, rows = ceilings(torch.device("cpu")), []
    plan = [("tokens", tokens, {"tokens": tokens}) for tokens in wanted.tokens]
    plan += [("batch", batch, {"batch": batch}) for batch in wanted.batch]
    plan += [("rank", rank, {"rank": rank}) for rank in wanted.rank]
    for axis, value, changes in plan:
        for kind in CACHES if axis != "rank" else ("calibrated",):
            rows.append({"axis": axis, "value": value, "kind": kind, **point(kind, top, **changes)})
            print(rows[-1], flush=True)
            write("scaling", {"width": WIDTH, "rows": rows, "exponents": exponents(rows)})
    plot(rows)


def point(kind: str, top: Ceilings, tokens: int = 1024, batch: int = 1, rank: int = 16) -> dict[str, Any]:
    """Medians of one size: a step of this kind, a full one, what our hooks take of the former, and what is kept."""
    fields = CACHES[kind] | ({"rank": rank} if kind == "calibrated" else {})
    recipe = Recipe.parse({"model": {"method": "flux", "device": "cpu"}, "cache": fields}, kind)
    pipe = build(recipe, flux(WIDTH, 1, 2))
    wide = max(side for side in range(1, math.isqrt(tokens) + 1) if tokens % side == 0)
    call = {**embeddings(pipe.pipeline, TEXT, batch), "height": 16 * tokens // wide, "width": 16 * wide}
    if kind == "calibrated":
        recipe.adapters["cache"].take(pipe, random_factors(pipe, call, rank))
    floor = floors(pipe, lambda: generate(pipe, call, STEPS), top)
    kept: list[int] = []
    seconds = own_seconds(pipe, call, kept)
    return {
        "full": statistics.median(seconds["full"]),
        "step": statistics.median(seconds[kind]),
        "own": statistics.median(seconds["own"]),
        "kept_bytes": max(kept),
        "floor": asdict(floor[kind]),
        "times_floor": statistics.median(seconds[kind]) / floor[kind].floor,
    }


def own_seconds(pipe: Pipe, call: dict[str, Any], kept: list[int]) -> dict[str, list[float]]:
    """Seconds of every step by kind, and under "own" those that each skipped step spent in our cache alone."""
    spent = _Spent(pipe)
    found: dict[str, list[float]] = {"own": []}
    marks: list[float] = []

    def tick(_done: int, _steps: int) -> None:
        marks.append(now())
        kept.append(kept_bytes(pipe))
        spent.close()

    pipe.clock.on_tick.append(tick)
    while len(found["own"]) < REPEATS:
        marks.clear()
        generate(pipe, call, STEPS)
        each = zip(pipe.passes.by_step.values(), [pipe.clock.first_pass, *marks], marks, strict=False)
        for (kind, begun, ended), own in zip(each, spent.steps, strict=True):
            found.setdefault(kind, []).append(ended - begun)
            if kind != "full":
                found["own"].append(own)
        spent.steps.clear()
    pipe.clock.on_tick.remove(tick)
    return found


class _Spent:
    """Seconds inside the cache's own calls: recalling a feature, or correcting a linear."""

    def __init__(self, pipe: Pipe) -> None:
        self.steps: list[float] = []
        self.seconds = 0.0
        for cache in pipe.caches:
            store: Any = cache
            if hasattr(store, "recall"):
                store.recall = self._timed(store.recall)
            for hook in getattr(store, "_hooks", {}).values():
                hook._advance = self._timed(hook._advance)

    def _timed(self, call: Any) -> Any:
        def timed(*args: Any) -> Any:
            begun = now()
            out = call(*args)
            self.seconds += now() - begun
            return out

        return timed

    def close(self) -> None:
        self.steps.append(self.seconds)
        self.seconds = 0.0


def exponents(rows: list[dict[str, Any]]) -> dict[str, float]:
    """By kind, axis and measure: the least-squares slope of its logarithm over that of the size."""
    found = {}
    for kind, axis in {(row["kind"], row["axis"]): None for row in rows}:
        mine = [row for row in rows if (row["kind"], row["axis"]) == (kind, axis)]
        for measure in ("full", "step", "own", "kept_bytes"):
            x = [math.log(row["value"]) for row in mine]
            y = [math.log(row[measure]) for row in mine]
            if len(set(x)) > 1:
                found[f"{kind} {axis} {measure}"] = statistics.linear_regression(x, y).slope
    return found


def plot(rows: list[dict[str, Any]]) -> None:
    """Seconds and bytes over each axis, on logarithmic scales."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    axes = list(dict.fromkeys(row["axis"] for row in rows))
    figure, places = pyplot.subplots(2, len(axes), figsize=(4 * len(axes), 6.5), squeeze=False, sharex="col")
    for column, axis in enumerate(axes):
        for kind, color in zip(CACHES, ("C0", "C1"), strict=True):
            mine = [row for row in rows if (row["axis"], row["kind"]) == (axis, kind)]
            x = [row["value"] for row in mine]
            if not mine:
                continue
            places[0][column].loglog(x, [row["step"] for row in mine], "o-", color=color, label=f"{kind} step")
            places[0][column].loglog(x, [row["own"] for row in mine], "o:", color=color, label=f"{kind}: our own work")
            places[1][column].loglog(
                x, [row["kept_bytes"] / 2**20 for row in mine], "o-", color=color, label=f"{kind}: kept"
            )
        full = [row for row in rows if row["axis"] == axis and row["kind"] == "calibrated"]
        places[0][column].loglog([row["value"] for row in full], [row["full"] for row in full], "k-", label="full step")
        places[1][column].set_xlabel(axis)
        sizes = [row["value"] for row in full]
        places[1][column].set_xticks(sizes, [str(size) for size in sizes])
        places[1][column].xaxis.minorticks_off()
    places[0][0].set_ylabel("seconds")
    places[1][0].set_ylabel("MiB kept")
    places[0][0].legend(fontsize=7, loc="upper left")
    places[1][0].legend(fontsize=7, loc="upper left")
    figure.tight_layout()
    figure.savefig(PLOT, dpi=110, metadata={"Software": None})
    print(f"wrote {PLOT}")


if __name__ == "__main__":
    main()
