"""A promise measured: certified on calibration prompts, kept on fresh ones; beside plain solvers, and with a guard.

    PYTHONPATH=benchmarks nice -n 5 python benchmarks/promise.py make calibration 320 plain cache-4 unipc-13
    PYTHONPATH=benchmarks nice -n 5 python benchmarks/promise.py make fresh 1008 plain cache-4
    PYTHONPATH=benchmarks python benchmarks/promise.py write
    PYTHONPATH=benchmarks nice -n 5 python benchmarks/promise.py make fresh 1008 plain cache-6 --model pixart

Captions of the embedded model, seen in training or not, in one random order: the first 400 for calibration, the next
1,008 fresh, the last 32 to put settings in order. Every batch of pictures is kept, so that the command goes on where it
was cut off. The cache's settings were chosen on the embedded model; `pixart` and `pixart-20` are twin-pixart, on which
nothing was chosen, with 50 and with its own 20 steps.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ditstack.assembly.sample import Pictures
from ditstack.calibration.certificate import ALARM, FEWEST
from ditstack.calibration.promised import LATE, scores, watch
from ditstack.files import write_atomically
from ditstack.maths import conformal, fidelity
from ditstack.maths.schedule import graded
from ditstack.pipeline import samplers
from ditstack.recipe.recipe import Recipe
from ditstack.stack import Stack, load
from ditstack_adapters.model.embedded import shapes
from results import write

BATCH, SHARE, CONFIDENCE = 16, 0.98, 0.95
KEPT = Path(__file__).parent / ".references" / "promise"
PARTS = {"calibration": (0, 10_000_000), "fresh": (400, 1000), "order": (1408, 30_000_000)}
"""Where the captions of a part begin, and its seeds."""
CACHES = ("cache-2", "cache-3", "cache-4", "cache-5", "cache-6", "cache-8")
"""svdcache by its interval, the safest first."""
FULL = ("full-22", "full-19")
"""By full steps, between two intervals."""
ORDERED_ON = 32
COUNTS = (45, 40, 35, 30, 25, 17, 13, 10)
SOLVERS = tuple(f"{kind}-{count}" for kind in ("unipc", "dpm", "deis", "euler") for count in COUNTS)
"""By their steps on the model's own sigmas, the safest first; `euler` is the model's own solver."""
BOTH = tuple(f"{scheme}+{one}" for scheme in ("int8", "int4") for one in CACHES)
"""Weights in fewer bits under the cache."""
ENOUGH = 160
"""Calibration pictures of a setting below which it is left out: nothing is proved by them."""
PROMISES = (28, 30, 32, 34, 36, 38, 40)
OTHERS, OTHERS_PSNR = ("star", "purple"), 30
"""Words left out of calibration, to see what becomes of prompts of another kind."""


@dataclass(frozen=True)
class Study:
    """A model that promises are measured on.

    Attributes:
        case: of the results file.
        folder: of what was made.
    """

    case: str
    recipe: str
    steps: int
    folder: Path


STUDIES = {
    "tiny": Study("promise", "tiny", 50, KEPT),
    "pixart": Study("promise_pixart", "benchmarks/twins/pixart.yaml", 50, KEPT / "pixart"),
    "pixart-20": Study("promise_pixart20", "benchmarks/twins/pixart.yaml", 20, KEPT / "pixart20"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "write"])
    parser.add_argument("part", nargs="?", choices=list(PARTS))
    parser.add_argument("count", nargs="?", type=int)
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--model", choices=list(STUDIES), default="tiny")
    wanted = parser.parse_args()
    study = STUDIES[wanted.model]
    if wanted.what == "make":
        make(study, wanted.part, wanted.count, wanted.settings)
        return
    names = (*CACHES, *FULL, *SOLVERS, *BOTH)
    enough = {"calibration": ENOUGH, "order": ORDERED_ON}
    rows = [row for part in PARTS for name in names if (row := figures(study, part, name)) is not None]
    rows = [row for row in rows if len(row["psnr_each"]) >= enough.get(row["part"], 0)]
    more = {"guards": [guard(study, psnr) for psnr in PROMISES], "others": [other(study, word) for word in OTHERS]}
    write(study.case, {"steps": study.steps, "share": SHARE, "confidence": CONFIDENCE, "rows": rows, **more})


@cache
def captions() -> list[str]:
    """All captions of one object in the order in which they are used."""
    every = [*shapes._level_1(True), *shapes._level_1(False)]
    return [every[place] for place in np.random.default_rng(19).permutation(len(every))]


def recipe_of(study: Study, name: str) -> Recipe:
    recipe = Recipe.read(study.recipe, [f"sampler.steps={study.steps}"])
    for part in name.split("+"):
        kind, _, number = part.partition("-")
        if kind == "cache":
            recipe = recipe.with_(cache={"method": "svdcache", "interval": int(number)})
        elif kind == "full":
            recipe = recipe.with_(cache={"method": "svdcache", "schedule": list(graded(study.steps, int(number)))})
        elif kind in ("int8", "int4"):
            recipe = recipe.with_(quantize={"method": "torchao", "scheme": kind})
        elif kind != "plain":
            recipe = recipe.with_(sampler=samplers.named(recipe.resolved()["sampler"], part))
    return recipe


def make(study: Study, part: str, wanted: int, settings: list[str]) -> None:
    stacks: dict[str, Stack] = {}
    first, seed = PARTS[part]
    for at, name in itertools.product(range(0, wanted, BATCH), settings):
        file = study.folder / f"{part}-{at}-{name}.safetensors"
        if file.is_file():
            continue
        if name not in stacks:
            stacks[name] = load(recipe_of(study, name))
            watch(stacks[name].pipe)
        places = range(at, min(at + BATCH, wanted))
        made = stacks[name].sample([captions()[first + one] for one in places], [seed + one for one in places])
        late = scores(stacks[name].pipe, made).get(LATE, [])
        found = {"images": made.images, "macs": torch.tensor(made.macs / len(places)), "late": torch.tensor(late)}
        write_atomically(file, save(found))


@cache
def kept(study: Study, part: str, name: str) -> dict[str, Tensor] | None:
    """All whole batches from the first on, of which there are plain ones too."""
    files = []
    for at in itertools.count(0, BATCH):
        pair = [study.folder / f"{part}-{at}-{one}.safetensors" for one in (name, "plain")]
        if not all(file.is_file() for file in pair):
            break
        files.append([load_file(file) for file in pair])
    if not files:
        return None
    joined = {key: torch.cat([one[key] for one, _ in files]) for key in ("images", "late")}
    psnr = [value for one, plain in files for value in fidelity.psnr(one["images"], plain["images"])]
    macs = sum(float(one["macs"] / plain["macs"]) for one, plain in files) / len(files)
    return {**joined, "psnr": torch.tensor(psnr), "macs": torch.tensor(macs)}


def figures(study: Study, part: str, name: str) -> dict[str, Any] | None:
    found = kept(study, part, name)
    if found is None:
        return None
    each = [round(value, 3) for value in found["psnr"].tolist()]
    return {"name": name, "part": part, "macs_ratio": float(found["macs"]), "psnr_each": each}


def found_for(study: Study, name: str) -> dict[str, Tensor]:
    found = kept(study, "calibration", name)
    assert found is not None, f"make calibration {name} first"
    return found


def guard(study: Study, psnr: float) -> dict[str, Any]:
    """The cheapest guard for a promise, chosen on the pictures that it is judged by, which is in its favour.

    A picture of setting `made` is made again with `again` where it is among the `share` of the lowest score.
    """
    best: dict[str, dict[str, Any]] = {}
    for made, again in itertools.permutations(CACHES, 2):
        one, other = found_for(study, made), found_for(study, again)
        if other["macs"] <= one["macs"]:
            continue
        ranks = {("late forecast error", ""): (-one["late"], 0.0)} if len(one["late"]) else {}
        for check in set(CACHES) - {made}:
            agreement = torch.tensor(fidelity.psnr(one["images"], found_for(study, check)["images"]))
            ranks["agreement of two runs", check] = agreement, float(found_for(study, check)["macs"])
        for (score, check), (rank, extra) in ranks.items():
            share = _made_again(rank, one["psnr"], other["psnr"], psnr)
            cost = float(one["macs"]) + extra + share * float(other["macs"])
            if score not in best or cost < best[score]["macs_ratio"]:
                best[score] = {"made": made, "check": check, "again": again, "share": share, "macs_ratio": cost}
    return {"psnr": psnr, "best": best}


def _made_again(rank: Tensor, made: Tensor, again: Tensor, psnr: float) -> float:
    """The smallest share of the lowest ranks that must be made again; infinite where none is enough."""
    order, most = rank.argsort(), conformal.most_broken(len(rank), SHARE, CONFIDENCE)
    left, still = (made < psnr)[order], (again < psnr)[order]
    for redone in range(len(rank) + 1):
        if int(still[:redone].sum() + left[redone:].sum()) <= most:
            return redone / len(rank)
    return float("inf")


def other(study: Study, word: str) -> dict[str, Any]:
    """A certificate for 30 dB made without the captions of a word, on fresh captions with it and without it."""
    with_word = {part: [word in one for one in captions()[first:]] for part, (first, _) in PARTS.items()}
    chosen = None
    made = [name for name in CACHES if kept(study, "fresh", name) is not None]
    for name in CACHES[: CACHES.index(made[-1]) + 1] if made else ():
        each = _those(found_for(study, name)["psnr"], with_word["calibration"], False)
        if int((each < OTHERS_PSNR).sum()) > conformal.most_broken(len(each), SHARE, CONFIDENCE):
            break
        chosen = name
    fresh = kept(study, "fresh", chosen or "") if chosen else None
    if fresh is None:
        return {"word": word, "setting": chosen}
    told: dict[str, Any] = {"word": word, "setting": chosen}
    known = _scores(found_for(study, str(chosen)), with_word["calibration"], False)
    for kind in (True, False):
        each = _those(fresh["psnr"], with_word["fresh"], kind)
        now = _scores(fresh, with_word["fresh"], kind)
        chances = {name: conformal.unlike(now[name], known[name]) for name in known}
        few = {name: conformal.unlike(now[name][: 2 * FEWEST], known[name]) for name in known}
        fired = {name: chance * len(chances) <= ALARM for name, chance in chances.items()}
        found = {"pictures": len(each), "broken": int((each < OTHERS_PSNR).sum()), "fired": fired, "chances": chances}
        told["with" if kind else "without"] = {**found, "fired_of_32": min(few.values()) * len(few) <= ALARM}
    return told


def _those(values: Tensor, has: list[bool], kind: bool) -> Tensor:
    return values[torch.tensor(has[: len(values)]) == kind]


def _scores(found: dict[str, Tensor], has: list[bool], kind: bool) -> dict[str, list[float]]:
    images = _those(found["images"], has, kind)
    pipe: Any = SimpleNamespace(caches=[])
    told = scores(pipe, Pictures(images, images, {}, {}, 0, []))
    return {**told, **({LATE: _those(found["late"], has, kind).tolist()} if len(found["late"]) else {})}


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
