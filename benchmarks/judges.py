"""What foretells better which constants serve on prompts of other people: calibration's pictures, or its final latents.

    PYTHONPATH=benchmarks python benchmarks/judges.py --models tiny dit pixart hunyuanvideo flux2

The constants of defaults.py at 7 full steps of 28 run on the calibration prompts, and are judged both ways there. Every
row is written at once; run again, only missing ones are measured.
"""

from __future__ import annotations

import argparse

import torch

from defaults import Model, cases
from ditstack.assembly.solvers import is_flow
from ditstack.calibration.run import SEED
from ditstack.compat import hush, hush_loading
from ditstack.maths import fidelity
from ditstack.stack import load
from results import add_row, newest
from sampled import sampled

STEPS, FULL = 28, 7
JUDGED = ("default", "even", "constant")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["tiny", "dit", "pixart", "hunyuanvideo", "flux2"])
    wanted = parser.parse_args()
    hush()
    hush_loading()
    for word in wanted.models:
        measure(Model(word, 16 if word == "flux2" else 32))


def measure(model: Model) -> None:
    """The rows of one model that are not there yet."""
    known = {(row["model"], row["name"]) for row in (newest("judges") or {"rows": []})["rows"]}
    plain = model.plain(STEPS)
    stack = load(plain)
    aims = sampled(stack, model.calibration, SEED)
    for name, kind, recipe in cases(plain, FULL, is_flow(stack.pipeline.scheduler)):
        if kind in JUDGED and (model.word, name) not in known:
            images, latents = sampled(load(recipe), model.calibration, SEED)
            row = {"model": model.word, "name": name, "prompts": len(model.calibration)}
            row |= {"pictures": fidelity.psnr(images, aims[0]), "latents": fidelity.decibels(latents, aims[1])}
            add_row("judges", {"steps": STEPS, "full": FULL}, row, ("model", "name"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
