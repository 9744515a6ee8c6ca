"""Does it really skip, or say why not? Pipeline classes of diffusers in small, under four recipes each.

What runs is counted by this script itself (zoo/measured.py), not by ditstack: the multiplications of the blocks'
linears, step by step. Beside it: the picture with the cache off against that of the recipe without a cache, and a
second call against the first.

    python benchmarks/pipelines.py [WORD ...] [--list]     only those whose name holds a word; a row each, at once
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import traceback
import warnings
from typing import Any

import numpy as np
import torch

from ditstack import apply
from ditstack.errors import DitstackError
from ditstack.recipe.adapter import find, methods
from results import add_row
from tables.pipelines import LEAST
from zoo import CASES
from zoo.measured import watched

STEPS, INTERVAL = 6, 2
SVD = {"method": "svdcache", "interval": INTERVAL}
COLUMNS: dict[str, dict[str, Any]] = {
    "svdcache": {"cache": SVD},
    "reuse": {"cache": {"method": "reuse", "interval": INTERVAL}},
    "icc": {"cache": {"method": "icc", "interval": INTERVAL, "rank": 4, "calibrate": "auto"}},
    "int8 + sparse + svdcache": {
        "quantize": {"method": "torchao", "scheme": "int8"},
        "attention": {"method": "sparse", "keep": 0.5, "block_size": 4},
        "cache": SVD,
    },
}
PROMPTS = ("prompt", "prompt_2", "class_labels")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("words", nargs="*")
    parser.add_argument("--list", action="store_true")
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("ditstack").setLevel(logging.ERROR)
    names = [name for name in CASES if not asked.words or any(word == name or word in name for word in asked.words)]
    if asked.list:
        print("\n".join(names))
        return
    for name in names:
        started = time.perf_counter()
        row = {"name": name, **measured(name), "seconds": time.perf_counter() - started}
        add_row("pipelines", {"steps": STEPS, "interval": INTERVAL}, row, ["name"])
        print(name, {column: cell["verdict"] for column, cell in row["cells"].items()}, flush=True)


def measured(name: str) -> dict[str, Any]:
    """One row: the plain pipeline, and the cell of every column."""
    pipeline, call = CASES[name]()
    with watched(pipeline) as plain:
        called(pipeline, call)
    method = family(pipeline)
    return {
        "method": method,
        "steps": len(plain.steps),
        "cells": {column: cell(name, method, stages, plain.steps) for column, stages in COLUMNS.items()},
    }


def cell(name: str, method: str, stages: dict[str, Any], plain: list[int]) -> dict[str, Any]:
    """What one recipe does on a fresh pipeline: what it skipped, or why it was refused."""
    pipeline, call = CASES[name]()
    with tempfile.TemporaryDirectory() as folder:
        cache = dict(stages["cache"])
        if cache["method"] == "icc":
            cache["factors"] = f"{folder}/f.safetensors"
        try:
            stack = apply(pipeline, recipe(method, call, {**stages, "cache": cache}), lambda text: None)
            with watched(pipeline) as counted:
                first = called(pipeline, call)
            told = [note for note in stack.notes if not note.startswith("model auto found")]
            again = called(pipeline, call)
            with stack.off():
                off = called(pipeline, call)
            kinds = stack.pipe.policy.plan(len(plain)) if stack.pipe.policy else ()
            reported = stack.report().model_dump_json()
        except DitstackError as error:
            return {"verdict": "refused", "told": [str(error)]}
        except Exception as error:
            return {"verdict": "traceback", "told": [f"{type(error).__name__}: {error}", traceback.format_exc()[-800:]]}
    rest, other_call = CASES[name]()
    others = {stage: one for stage, one in stages.items() if stage != "cache"}
    if others:
        apply(rest, recipe(method, other_call, others))
    aim = called(rest, other_call)
    found = {
        "planned": sum(work for work, kind in zip(plain, kinds, strict=True) if kind != "full") / sum(plain),
        "skipped": 1 - sum(counted.steps) / sum(plain),
        "steps": len(counted.steps),
        "off_exact": bool(np.array_equal(off, aim)),
        "again_equal": bool(np.array_equal(again, first)),
        "acts": not np.array_equal(first, off),
        "told": told,
        "report": bool(reported),
    }
    return {"verdict": verdict(found), **found}


def verdict(found: dict[str, Any]) -> str:
    """One word: works, noted (does less than planned, and says so), silent, or what is not exact."""
    if not found["off_exact"]:
        return "off differs"
    if not found["again_equal"]:
        return "second call differs"
    if found["skipped"] >= LEAST * found["planned"]:
        return "works"
    return "noted" if found["told"] else "silent"


def recipe(method: str, call: dict[str, Any], stages: dict[str, Any]) -> dict[str, Any]:
    """What a user would write for a pipeline that wants more than a prompt."""
    arguments = {key: value for key, value in call.items() if key not in PROMPTS}
    prompts = ["7", "8"] if "class_labels" in call else ["a red star", "a blue ring"]
    return {
        "model": {"method": method, "device": "cpu", "arguments": arguments},
        "sampler": {"steps": STEPS},
        "calibration": prompts,
        **stages,
    }


def family(pipeline: Any) -> str:
    """The word of the family whose transformer a pipeline runs; auto where no file knows it."""
    kind = type(pipeline.transformer).__name__
    known = {getattr(find("model", word), "transformer_class", ""): word for word in methods("model") if word != "tiny"}
    return known.get(kind, "auto")


def called(pipeline: Any, call: dict[str, Any]) -> np.ndarray:
    """What a call makes, as numbers."""
    call = {key: list(value) if isinstance(value, list) else value for key, value in call.items()}
    torch.manual_seed(0)  # some code a picture by chance, whatever generator they are given
    with torch.inference_mode():
        out = pipeline(
            num_inference_steps=STEPS, generator=torch.Generator().manual_seed(0), return_dict=False, **call
        )[0]
    return as_array(out)


def as_array(out: Any) -> np.ndarray:
    """Pictures, frames, tensors or lists of them."""
    if isinstance(out, torch.Tensor):
        return out.float().numpy()
    if isinstance(out, (list, tuple)):
        return np.stack([as_array(one) for one in out])
    return np.asarray(out)


if __name__ == "__main__":
    main()
