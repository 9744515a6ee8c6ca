"""Whether one default holds across models, and what choosing on each model gains: schedules, predictors, controls.

    PYTHONPATH=benchmarks python benchmarks/defaults.py --models tiny dit dit@1.5 flux2 [--settings 9/50 7/28]

For each model (`@` gives its guidance) and each number of full steps, on prompts that nothing was chosen on: svdcache's
default, even full steps, every control (see controls.py; the best is chosen on other prompts), `schedule: fitted` as
`ditstack calibrate` chooses it on sixteen further prompts, and a few other constants, for a default that is chosen on
all models but one. Every row is written at once; run again, only missing ones are measured.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any

import torch

from ditstack.assembly.build import build
from ditstack.assembly.solvers import is_flow
from ditstack.caching.setting import Setting, read
from ditstack.calibration.choice import choose_setting
from ditstack.calibration.run import CalibrationRun, Partial
from ditstack.compat import hush, hush_loading
from ditstack.factors import fingerprint
from ditstack.maths import fidelity
from ditstack.maths.schedule import even, graded
from ditstack.measure.controls import controls
from ditstack.recipe.recipe import Recipe
from ditstack.stack import Stack, load
from ditstack_adapters.cache.svdcache import SvdCache
from ditstack_adapters.model.embedded import shapes
from results import add_row, place_of
from sampled import KEPT, kept, sampled
from twinning.twin import find

SETTINGS = ((50, 12), (50, 9), (50, 7), (28, 7), (20, 5))
"""Steps, and how many of them are full."""
TRIALS, FITTED_ON = 8, 16
"""Prompts on which the best control is chosen, and those that calibration gets: as many as the command line gives."""
FEWER = 16
"""Prompts that constants run on: the first of the others'."""
SEED, OTHER_SEED = 1000, 5000
AGAIN = 20_000
"""How far the seeds of a second run lie from those of the first."""
SPREADS = {"graded": {}, "graded, earlier": {"start": 0.67}, "graded, later": {"start": 1.0, "grade": 1.0}}
PREDICTORS = {
    "order 1 in steps": {},
    "order 2 in steps": {"order": 2},
    "order 1 in sigma": {"coordinate": "sigma"},
}
Case = tuple[str, str, Recipe]
"""A name, its kind ("default", "even", "control", "fitted", "constant" or "over"), and what is run."""


class Model:
    """One model with its guidance, and prompts: to measure on, to choose controls on, to calibrate on.

    Args:
        again: other prompts and other noise, for everything.
        fitted_on: how many prompts the choice has.
    """

    def __init__(self, word: str, count: int, again: int = 0, fitted_on: int = FITTED_ON) -> None:
        self.word, self.again, self.fitted_on = word, again, fitted_on
        name, _, guidance = word.partition("@")
        self.changes = [f"sampler.guidance={guidance}"] if guidance else []
        if name == "tiny":
            self.recipe, self.prompts = name, shapes.unseen_prompts(count, 7 + again)
            seen = shapes.seen_prompts(TRIALS + fitted_on, 3 + again)
        else:
            self.recipe = f"benchmarks/twins/{name}.yaml"
            given = find(name).prompts(count + TRIALS + fitted_on, 7 + again)
            self.prompts, seen = given[:count], given[count:]
        self.trials, self.calibration = seen[:TRIALS], seen[TRIALS:]

    @property
    def case(self) -> str:
        """Where its rows are kept."""
        if self.fitted_on != FITTED_ON:
            return "defaults_more"
        return "defaults_again" if self.again else "defaults"

    def plain(self, steps: int) -> Recipe:
        return Recipe.read(self.recipe, [f"sampler.steps={steps}", *self.changes])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["tiny", "dit", "dit@1.5", "flux2"])
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--settings", nargs="+", default=[f"{full}/{steps}" for steps, full in SETTINGS])
    parser.add_argument("--again", type=int, default=0, help="other prompts and other noise: a table of its own")
    parser.add_argument("--fitted-on", type=int, default=FITTED_ON, help="prompts of a choice, a row of its own")
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose kind holds one of these words")
    wanted = parser.parse_args()
    hush()
    hush_loading()
    for word in wanted.models:
        model = Model(word, wanted.prompts, wanted.again, wanted.fitted_on)
        for setting in wanted.settings:
            count, steps = map(int, setting.split("/"))
            measure(model, steps, count, wanted.only)


def measure(model: Model, steps: int, count: int, only: list[str]) -> None:
    """The rows of one model at one setting that are not there yet."""
    plain = model.plain(steps)
    stack = load(plain)
    weights, flow = fingerprint(stack.pipe.transformers), is_flow(stack.pipeline.scheduler)
    missing = [
        (name, kind, recipe)
        for name, kind, recipe in cases(plain, count, flow)
        if any(word in kind for word in only) and (model.word, steps, count, name) not in there(model.case)
    ]
    if not missing:
        return
    shift = AGAIN * model.again
    (prompts, seed), (others, other_seed) = (model.prompts, SEED + shift), (model.trials, OTHER_SEED + shift)
    aims, other_aims = pictures(plain, prompts, seed, weights), pictures(plain, others, other_seed, weights)
    for name, kind, recipe in missing:
        row: dict[str, Any] = {"model": model.word, "steps": steps, "full": count, "name": name, "kind": kind}
        row |= {"weights": weights, "guidance": plain.sampler.guidance}
        if kind == "fitted":
            row |= calibrated(plain, count, model, weights)
            recipe = cached(plain, row["chosen"].pop("schedule"), **row["chosen"])
            row["chosen"] = {key: recipe.resolved()["cache"][key] for key in ("schedule", "order", "coordinate")}
        stack, part = load(recipe), prompts[: FEWER if kind in ("constant", "over") else None]
        row["psnr_each"] = fidelity.psnr(sampled(stack, part, seed)[0], aims[: len(part)])
        row |= {"prompts": len(part), "ran": stack.pipe.passes.steps}
        if kind == "control":
            row["psnr_on_others"] = fidelity.psnr(sampled(stack, others, other_seed)[0], other_aims)
        add_row(model.case, {"fitted_on": model.fitted_on}, row, ("model", "steps", "full", "name"))
        print(
            f"{model.word} {count} of {steps} {name}: {sum(row['psnr_each']) / len(row['psnr_each']):.2f} dB",
            flush=True,
        )


def there(case: str) -> set[tuple[str, int, int, str]]:
    file = place_of(case)
    rows = json.loads(file.read_text())["rows"] if file.is_file() else []
    return {(row["model"], row["steps"], row["full"], row["name"]) for row in rows}


def cases(plain: Recipe, count: int, flow: bool) -> Iterator[Case]:
    """Every row at one setting."""
    steps = plain.sampler.steps
    yield "default", "default", cached(plain, graded(steps, count))
    yield "even", "even", cached(plain, even(steps, count))
    for control in controls(plain, count, flow):
        yield f"control: {control.title}", "control", control.recipe
    yield "fitted", "fitted", cached(plain, "fitted")
    for spread, constants in SPREADS.items():
        for predictor, fields in PREDICTORS.items():
            if constants or fields:
                schedule = graded(steps, count, **constants)
                yield f"{spread}: {predictor}", "constant", cached(plain, schedule, **fields)
    for predictor, fields in PREDICTORS.items():
        if fields:
            yield f"even: {predictor}", "constant", cached(plain, even(steps, count), **fields)
    for title, recipe in over(plain, count):
        yield f"over UniPC, order 2: {title}", "over", recipe


def over(plain: Recipe, count: int) -> Iterator[tuple[str, Recipe]]:
    """The cache over another solver in all of its steps."""
    data = plain.resolved()
    solver = {"scheduler": "UniPCMultistepScheduler", "settings": {"solver_order": 2}}
    solved = Recipe.parse({**data, "sampler": {**data["sampler"], **solver}}, "over UniPC")
    for title, spread in (("graded", graded), ("even", even)):
        for predictor, fields in PREDICTORS.items():
            yield f"{title}: {predictor}", cached(solved, spread(plain.sampler.steps, count), **fields)


def cached(plain: Recipe, schedule: Any, **fields: Any) -> Recipe:
    spelt = schedule if isinstance(schedule, str) else list(schedule)
    return plain.with_(cache={"method": "svdcache", "schedule": spelt, **fields})


def calibrated(plain: Recipe, count: int, model: Model, weights: str) -> dict[str, Any]:
    """What `schedule: fitted` chooses for a model at any number of full steps, and in how many seconds.

    What a killed one had tried is not tried again.
    """
    pipe, said = build(cached(plain, "fitted")), []
    steps, told = plain.sampler.steps, {"weights": weights, "prompts": " ".join(model.calibration)}
    KEPT.mkdir(exist_ok=True)
    more = "" if model.fitted_on == FITTED_ON else f"-{model.fitted_on}"
    partial = Partial(KEPT / f"choice-{model.word}-{count}-{steps}-{model.again}{more}.safetensors", told)
    before = float(partial.of("spent").get("cpu", torch.zeros(())))
    run = CalibrationRun(pipe, model.calibration, plain.sampler, said.append, partial=partial)
    cache, began = SvdCache(schedule="fitted"), time.process_time()
    tensors = choose_setting(
        run,
        lambda setting: cache.take(pipe, setting.tensors()),
        Setting(steps, graded(steps, count)),
        [(order, coordinate) for order in (1, 2) for coordinate in ("step", "sigma")],
    )
    spent = before + time.process_time() - began
    partial.keep("spent", {"cpu": torch.tensor(spent)}, at_once=True)
    setting = Setting.of(tensors)
    assert setting is not None
    chosen = {"schedule": list(setting.full), "order": setting.order, "coordinate": setting.coordinate}
    beside = read(tensors["beside"]) if "beside" in tensors else None
    return {"said": said, "beside": beside, "cpu_seconds": spent, "chosen": chosen}


def pictures(plain: Recipe, prompts: list[str], seed: int, weights: str) -> torch.Tensor:
    """Uncached ones, made once."""
    resolved = plain.resolved()
    said = {"uncached": {"model": resolved["model"], "sampler": resolved["sampler"]}, "weights of": weights}

    def make() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        stack: Stack = load(plain)
        return {"images": sampled(stack, prompts, seed)[0]}, {}

    return kept({**said, "prompts": prompts, "seed": seed}, make)[0]["images"]


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
