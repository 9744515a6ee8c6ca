"""Our caches beside their peers and controls: the same prompts, seeds and number of full steps, on the embedded model.

    python benchmarks/peers.py [--prompts 64] [--full 12 9 7] [--settings peers.json] [--only WORD ...] [--again]

Pictures are compared with the uncached ones and with the converged ones (see sampled.py). Peers have the best of
several settings, by PSNR on prompts that were seen in training, or with --settings those that an earlier file chose so;
of the controls the best is chosen on the same prompts, and all are reported; ours are not chosen. Figures are on unseen
prompts. Each row is added to benchmarks/results/<machine>_<date>/peers.json at once; what is there is left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

import settings
from cachedit import CacheDit
from ditstack.compat import hush, hush_loading
from ditstack.maths import fidelity
from ditstack.maths.schedule import even, graded
from ditstack.measure.controls import controls
from ditstack.recipe.recipe import Recipe
from ditstack_adapters.model.embedded import shapes
from rehearse import paint, pipeline
from results import add_row, place_of
from sampled import Outcome, References, outcome, painted
from svdcache import TRIALS, stacked

FEW = 4
SEARCHED = {
    (50, 12): "FSSSFSSSFSSSFRSSFSSCRFCSSSFSSSSSFSCSSFSSCSSCSFSSFS",
    (50, 9): "FSSSSFSSSSFSSSSFSSSSSFSSRRFSSSSSSRSFSSSSFSSSSSSFSS",
    (50, 7): "FSSSSSFSSSSSFSSRSSSFSSRRRSSFSRSSRSSRSFSSSSSSSSFSSS",
}
"""What `ditstack search` found on 48 prompts of training, by steps and by the full steps that it may cost."""
NOT_RUN = {
    "diffusers PyramidAttentionBroadcast, FasterCache": "they skip attention alone, so no step count compares",
    "FastCache, MixCache": "no code to install",
}


Run = Callable[[References], Outcome]
"""One setting of one contestant."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--full", type=int, nargs="+", default=[12, 9, 7])
    parser.add_argument("--settings", type=Path, help="a results file whose chosen settings of peers are taken")
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose name or kind holds one of these words")
    parser.add_argument("--later", action="store_true", help="do without the converged pictures while they are made")
    parser.add_argument("--again", action="store_true", help="rows that are there are measured again")
    wanted = parser.parse_args()
    hush()
    hush_loading()
    base = Recipe.read("tiny", [f"sampler.steps={wanted.steps}"]).resolved()
    field = Field(base, shapes.unseen_prompts(wanted.prompts, 7), chosen_before(wanted.settings), wanted.later)
    told = {"prompts": wanted.prompts, "steps": wanted.steps, "resolved": base, "not_run": NOT_RUN}
    for count in wanted.full:
        for name, kind, candidates in entries(field, count):
            asked = any(word in f"{kind} {name}" for word in wanted.only)
            if asked and (wanted.again or (name, count) not in rows_there()):
                row = {"name": name, "kind": kind, "asked": count, **measure(field, name, count, candidates)}
                add_row("peers", told, row, ("name", "asked"))
                print(summary(row), flush=True)


def rows_there() -> set[tuple[str, int]]:
    """What today's file holds, perhaps from another process."""
    file = place_of("peers")
    return {(row["name"], row["asked"]) for row in json.loads(file.read_text())["rows"]} if file.is_file() else set()


def chosen_before(file: Path | None) -> dict[tuple[str, int], dict[str, Any]]:
    """The rows of peers that an earlier file holds, by name and number of full steps."""
    rows = json.loads(file.read_text())["rows"] if file else []
    return {(row["name"], row["asked"]): row for row in rows if row["kind"] == "peer"}


def summary(row: dict[str, Any]) -> str:
    each = {name: statistics.fmean(row[name]) for name in ("psnr_each", "converged_each") if name in row}
    figures = ", ".join(f"{name} {mean:.2f}" for name, mean in each.items()) + f", of full MACs {row['macs_ratio']:.3f}"
    return f"{row['asked']:3d} {row['name']:32s} {figures} full {row['full']} {row['setting']}"


def entries(field: Field, count: int) -> Iterator[tuple[str, str, Iterable[tuple[str, Run]]]]:
    """Everyone at one number of full steps: a name, its kind, and settings to choose from."""
    steps = field.steps
    on_even, on_graded = {"schedule": list(even(steps, count))}, {"schedule": list(graded(steps, count))}
    yield "svdcache (default)", "ours", [("graded, order 1", field.ours(on_graded))]
    for control in controls(Recipe.parse(field.base, "control"), count, flow=True):
        yield f"fewer steps: {control.title}", "control", [("", partial(painted, control.recipe))]
    yield "svdcache, even", "ours", [("even, order 1", field.ours(on_even))]
    yield "svdcache, fitted gains", "ours", [("graded", field.ours({**on_graded, "predictor": "fitted"}))]
    if (steps, count) in SEARCHED:
        schedule = SEARCHED[steps, count]
        yield "mixed, searched", "ours", [(schedule, field.mixed(schedule))]
    yield "reuse (FORA)", "peer", [("even", field.ours({**on_even, "predictor": "reuse"}))]
    for lite, label in ((True, " lite"), (False, "")):
        yield f"diffusers TaylorSeer{label}", "peer", field.cached(settings.taylorseer(steps, count, lite))
    yield from field.that_decide(count)
    for forecast, label in ((None, ""), ("taylorseer", " + TaylorSeer"), ("foca", " + FoCa"), ("dmd", " + DMD")):
        yield f"cache-dit DBCache{label}", "peer", field.by_cachedit(settings.cachedit(steps, count, forecast))


def measure(field: Field, name: str, count: int, candidates: Iterable[tuple[str, Run]]) -> dict[str, Any]:
    """The best of some settings on seen prompts, and its figures on unseen ones."""
    before, tried = field.before.get((name, count)), []
    for label, run in candidates:
        if before is not None and label == before["setting"]:
            tried = [(before["psnr_on_seen"], label, run)]
            break
        psnr = fidelity.psnr(run(field.seen).images, field.seen.uncached)
        tried.append((statistics.fmean(psnr), label, run))
    best, label, run = max(tried, key=lambda one: one[0])
    made = run(field.unseen)
    return {
        "full": made.full,
        "setting": label,
        "settings_tried": len(tried) if before is None else before["settings_tried"],
        "psnr_on_seen": best,
        "macs_ratio": made.macs_ratio,
        **field.unseen.figures(made.images),
    }


class Field:
    """Where everyone runs: one model, one sampler, prompts to choose settings on and prompts to measure on."""

    def __init__(
        self, base: dict[str, Any], prompts: list[str], before: dict[tuple[str, int], dict[str, Any]], later: bool
    ) -> None:
        self.base, self.steps, self.before = base, base["sampler"]["steps"], before
        self.unseen = References.of(base, prompts, later=later)
        self.seen = References.of(base, shapes.seen_prompts(TRIALS, 5), 500, later=True)

    @cached_property
    def process(self) -> CacheDit:
        return CacheDit("tiny")

    @cached_property
    def ratios(self) -> list[float]:
        return settings.magnitudes(self._calibrate, self.steps)

    def that_decide(self, count: int) -> Iterator[tuple[str, str, Iterable[tuple[str, Run]]]]:
        """Peers that decide by a threshold, which an earlier file may name."""
        for name, method in (("diffusers FirstBlockCache", "fbcache"), ("diffusers MagCache", "magcache")):
            before = self.before.get((name, count))
            if before is not None:
                stage = settings.decided(method, before["setting"], self.steps)
                ratios = {"ratios": self.ratios} if method == "magcache" else {}
                yield name, "peer", self.cached([(before["setting"], {**stage, **ratios})])
            elif method == "fbcache":
                yield name, "peer", self.cached(settings.fbcache(count, self.ran))
            else:
                yield name, "peer", self.cached(settings.magcache(self.steps, count, self.ratios, self.ran))

    def ours(self, fields: dict[str, Any]) -> Run:
        """SVD-Cache; gains are fitted once, to other prompts."""
        return partial(painted, stacked(self.base, fields))

    def mixed(self, schedule: str) -> Run:
        """A letter for each step; where there are calibrated ones, their factors are fitted once, to other prompts."""
        file = Path(tempfile.mkdtemp()) / "factors.safetensors"
        fitted = {"macs": 0.16, "calibrate": "auto", "factors": str(file)} if "C" in schedule else {}
        data = {**self.base, "cache": {"method": "mixed", "schedule": schedule, **fitted}}
        return partial(painted, Recipe.parse({**data, "calibration": shapes.seen_prompts(16, 3)}, "ours"))

    def cached(self, candidates: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[tuple[str, Run]]:
        """Caches that a recipe can name."""
        for label, stage in candidates:
            yield label, partial(painted, Recipe.parse({**self.base, "cache": stage}, label))

    def by_cachedit(self, candidates: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[tuple[str, Run]]:
        for label, job in candidates:
            yield label, partial(self.ask, job)

    def ask(self, job: dict[str, Any], prompts: References) -> Outcome:
        """Run a job of cache-dit's, in its own process."""
        said = {"cache-dit": job, "model": self.base["model"], "sampler": self.base["sampler"]}
        return outcome(said, prompts, lambda: self._ask(job, prompts))

    def _ask(self, job: dict[str, Any], prompts: References) -> Outcome:
        ratio = self.process.ask("cache", **job)["macs_ratio"]
        with tempfile.TemporaryDirectory() as folder:
            file = f"{folder}/pictures.safetensors"
            guidance = self.base["sampler"]["guidance"]
            full = self.process.ask("paint", prompts=prompts.prompts, seeds=prompts.seeds, guidance=guidance, file=file)
            images = load_file(file)["images"]
        return Outcome(images, (full["full"],) * 3, ratio, {})

    def ran(self, stage: dict[str, Any]) -> float:
        """How many steps a cache runs in full on the first seen prompts."""
        return painted(Recipe.parse({**self.base, "cache": stage}, "trial"), self.seen.first(FEW)).full[0]

    def _calibrate(self, config: Any) -> None:
        pipe = pipeline("tiny")
        pipe.transformer.enable_cache(config)
        paint(pipe, self.seen.prompts, self.seen.seeds, self.steps, self.base["sampler"]["guidance"])


if __name__ == "__main__":
    main()
