"""The few-step LoRA on the embedded model, beside the plain model at as many steps, with and without guidance.

    python benchmarks/few_step.py [--prompts 256] [--pictures 4] [--steps 4 3 2] [--keep FOLDER]

Agreement is judged on prompts that neither the model nor the LoRA was trained on, several pictures each; PSNR is to the
plain model's guided pictures at the recipe's own steps, same seeds. Intervals are over prompts, differences paired.
Writes benchmarks/results/<machine>_<date>/few_step.json. With --keep, pictures already there are not made again.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ditstack.compat import hush, hush_loading
from ditstack.maths import fidelity
from ditstack.recipe.recipe import Recipe
from ditstack.stack import load
from results import write

BATCH = 32
UNGUIDED = "sampler.guidance=1.0"
LORA = ["distill.method=lora", "distill.preset=tiny-4step"]
WEIGHTS = {
    "torchao": ("int8", "int8dq", "fp8", "int4", "int3"),
    "bitsandbytes": ("int8", "nf4", "fp4"),
}
CACHE = ["cache.method=svdcache", "cache.interval=2", "cache.predictor=reuse"]


@dataclass
class Case:
    """One way of sampling.

    Attributes:
        against: the cases that it is compared with, pair by pair.
    """

    name: str
    changes: list[str]
    against: tuple[str, ...] = ()

    @property
    def recipe(self) -> Recipe:
        return Recipe.read("tiny", self.changes)

    @property
    def passes(self) -> int:
        """How often the transformer runs in full."""
        sampler, cache = self.recipe.sampler, self.recipe.adapters.get("cache")
        full = sampler.steps if cache is None else len(cache.full_steps(sampler.steps))  # pyright: ignore[reportAttributeAccessIssue]
        return full * (2 if (sampler.guidance or 0) > 1 else 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--pictures", type=int, default=4, help="of each prompt")
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 3, 2])
    parser.add_argument("--keep", type=Path, help="a folder for the pictures, so that a run can go on")
    wanted = parser.parse_args()
    hush()
    hush_loading()
    bench = Bench(wanted.prompts, wanted.pictures, wanted.keep)
    asked = {
        "effect": list(effects()),
        "prompts": wanted.prompts,
        "pictures": wanted.pictures,
        "resolved": Recipe.read("tiny", LORA).resolved(),
    }
    for case in cases(wanted.steps):
        bench.measure(case)
        write("few_step", asked | {"attributes": list(bench.judge.attributes), "rows": bench.compared()})


def effects() -> Iterator[dict[str, Any]]:
    """What the LoRA's own check finds on weights of every kind: the cosine of its move with that on plain weights."""
    for method, schemes in WEIGHTS.items():
        for scheme in schemes:
            row: dict[str, Any] = {"weights": f"{method} {scheme}"}
            for fuse in ("true", "false"):
                on = [f"quantize.method={method}", f"quantize.scheme={scheme}", f"distill.fuse={fuse}"]
                notes = " ".join(load(Recipe.read("tiny", [*LORA, *on])).pipe.notes)
                row["fused" if fuse == "true" else "beside"] = float(re.findall(r"cosine (-?[\d.]+)", notes)[0])
            print(row, flush=True)
            yield row


def cases(steps: list[int]) -> Iterator[Case]:
    """Every row; the first is the reference."""
    reference = Case("plain, guided, all steps", [])
    yield reference
    for count in steps:
        at, unguided, guided = f"sampler.steps={count}", f"plain, {count} steps", f"plain, guided, {count} steps"
        yield Case(unguided, [at, UNGUIDED])
        yield Case(f"LoRA, {count} steps", [*LORA, at], (unguided, guided, reference.name))
    for count in (one for one in steps if one // 2 in steps):
        halves = (f"LoRA, {count} steps", f"LoRA, {count // 2} steps")
        changes = [*LORA, f"sampler.steps={count}", *CACHE]
        yield Case(f"{halves[0]}, features of every second one reused", changes, halves)
    for count in steps:
        yield Case(f"plain, guided, {count} steps", [f"sampler.steps={count}"])


class Bench:
    """The reference, and rows measured on the same prompts and seeds."""

    def __init__(self, count: int, each: int, keep: Path | None) -> None:
        judge = Recipe.read("tiny").model.judge()
        assert judge is not None
        self.judge, self.each, self.keep = judge, each, keep
        self.prompts = [prompt for prompt in judge.prompts(count) for _ in range(each)]
        self.reference: Tensor | None = None
        self.right: dict[str, list[float]] = {}
        """For each case and prompt, the share of pictures that agree in all that it names."""
        self.psnr: dict[str, list[float]] = {}
        self.rows: list[dict[str, Any]] = []
        self.against: dict[str, tuple[str, ...]] = {}

    def measure(self, case: Case) -> None:
        images = self.pictures(case)
        self.reference = images if self.reference is None else self.reference
        verdicts = self.judge.agreement(images, self.prompts)
        self.right[case.name] = self.by_prompt([float(all(verdict.values())) for verdict in verdicts])
        row: dict[str, Any] = {"name": case.name, "passes": case.passes}
        row["agree"] = fidelity.bootstrap(self.right[case.name])
        row["by_attribute"] = {name: share(verdicts, name) for name in self.judge.attributes}
        if case.changes:
            self.psnr[case.name] = self.by_prompt(fidelity.psnr(images, self.reference))
            row["psnr"] = fidelity.bootstrap(self.psnr[case.name])
        self.rows.append(row)
        self.against[case.name] = case.against
        print(case.name, row["agree"], row.get("psnr"), flush=True)

    def compared(self) -> list[dict[str, Any]]:
        """The rows so far, each with its gains over others so far."""
        return [
            {**row, "gain": self.gains(self.right, row["name"]), "psnr_gain": self.gains(self.psnr, row["name"])}
            for row in self.rows
        ]

    def gains(self, values: dict[str, list[float]], name: str) -> dict[str, tuple[float, float, float]]:
        """How much more one row has than others, prompt by prompt, with its interval."""
        others = [other for other in self.against[name] if other in values]
        return {other: fidelity.paired(values[name], values[other]) for other in others}

    def by_prompt(self, values: list[float]) -> list[float]:
        """The mean over the pictures of each prompt."""
        return torch.tensor(values, dtype=torch.float64).view(-1, self.each).mean(1).tolist()

    def pictures(self, case: Case) -> Tensor:
        kept = None if self.keep is None else self.keep / f"{re.sub('[^a-zA-Z0-9]+', '-', case.name)}.pt"
        if kept is not None and kept.is_file():
            return torch.load(kept, weights_only=True)
        stack, made = load(case.recipe), []
        for at in range(0, len(self.prompts), BATCH):
            part = self.prompts[at : at + BATCH]
            made.append(stack.sample(part, list(range(at, at + len(part)))).images)
        images = torch.cat(made)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            torch.save(images, kept)
        return images


def share(verdicts: list[dict[str, bool]], name: str) -> float:
    """Of the prompts that name an attribute, the share whose picture agrees."""
    found = [verdict[name] for verdict in verdicts if name in verdict]
    return sum(found) / len(found)


if __name__ == "__main__":
    main()
