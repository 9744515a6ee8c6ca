"""Ladders of stacks on published models' shapes with random weights, on one GPU: speed only, the pictures are noise.

    python benchmarks/gpu.py --case flux [--out FOLDER] [--resume] [--budget 540] [--only "bf16" ...] [--dry-run]

Cases: flux (FLUX.1-dev, 1024 x 1024, 28 and 50 steps), hunyuanvideo (720p, 61 frames, by single steps), pixart and dit
(for ICC). What is known of a row is in FOLDER/gpu_<case>.json at once, whatever ends it; the others go on. `--resume`
measures what is missing, `--dry-run` says what would be and about how long it takes, `--small` runs the same in small,
anywhere. Each row holds its recipe; `--recipes FILE` writes those of a results file into FOLDER.
"""

from __future__ import annotations

import argparse
import gc
import importlib.machinery
import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ditstack.assembly.build import build
from ditstack.compat import hush, hush_loading
from ditstack.pipeline.clock import now
from ditstack.pipeline.pipe import Pipe
from ditstack.recipe.capabilities import describe_machine
from ditstack.recipe.recipe import Recipe
from ditstack.report import peak_memory, reset_peak_memory
from gpu_book import SPENT, Book, Deadline, OutOfTime, gpu_state, is_fatal, top_kernels
from gpu_rows import Row, ladder
from gpu_timing import generate, generation, planned, random_factors, roofline, step_seconds
from limits import Ceilings, ceilings, floors
from models import SHAPES, Shape

REPEATS, SECONDS = 5, 12.0
"""A generation is timed so often, or as often as fits in so many seconds, but at least once."""
FLOOR_STEPS = 8
TWICE = 2
"""How often each kind of step is seen where only single steps are timed."""

Note = Callable[..., None]


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=SHAPES, default="flux")
    parser.add_argument("--out", type=Path, help="folder of the results; the day's own folder by default")
    parser.add_argument("--budget", type=float, default=540.0)
    parser.add_argument("--until", type=float, help="a time of the epoch, instead of a budget")
    parser.add_argument("--only", nargs="*", default=[], help="names of rows")
    parser.add_argument("--part", type=int, help="rows of one part of the measuring plan")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--recipes", type=Path, metavar="FILE")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> None:
    wanted = arguments(given)
    if wanted.recipes:
        return write_recipes(wanted.recipes, wanted.out or Path("."))
    rows = [row for row in ladder(wanted.case, wanted.small) if not wanted.only or row.name in wanted.only]
    rows = [row for row in rows if wanted.part in (None, row.part)]
    if wanted.dry_run:
        return tell_plan(wanted.case, rows)
    hush()
    hush_loading()
    no_video_is_written()
    deadline = Deadline(wanted.budget, wanted.until)
    book = Book(f"gpu_{wanted.case}" + ("_small" if wanted.small else ""), wanted.out, wanted.resume)
    rows = [row for row in rows if not book.done(row.name)]
    if not rows:
        return None
    top = ceilings(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    print(f"{describe_machine()}: {asdict(top)}", flush=True)
    for row in rows:

        def keep(figures: dict[str, Any], row: Row = row) -> None:
            told = {"weights": "random: speed only", "ceilings": asdict(top)}
            book.put({"name": row.name, "steps": row.steps, **figures}, **told)

        run(SHAPES[wanted.case], row, top, wanted.small, deadline, keep)


def tell_plan(case: str, rows: list[Row]) -> None:
    """What would be measured, and about how long it takes."""
    for row in rows:
        how = "single steps" if row.single else f"{row.steps} steps"
        print(f"{case}, part {row.part}: {row.name} ({how}), about {row.seconds(case):.0f} s")
    print(f"{case}: about {sum(row.seconds(case) for row in rows):.0f} s")


def run(
    shape: Shape, row: Row, top: Ceilings, small: bool, deadline: Deadline, keep: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """One row's figures, as far as it came, and why no further. A process that can go no further starts again."""
    figures: dict[str, Any] = {}
    begun = now()

    def note(**more: Any) -> None:
        figures.update(more, row_seconds=now() - begun)
        keep(figures)

    try:
        if deadline.left <= 0:
            note(refused=SPENT)
        else:
            (_peer if row.stages is None else _measure)(shape, row, top, small, deadline, note)
    except OutOfTime:
        note(**({"cut": SPENT} if figures else {"refused": SPENT}))
    except (KeyboardInterrupt, SystemExit):
        keep({**figures, "cut": SPENT})
        raise
    except BaseException as error:  # whatever a row dies of, the others are measured
        said = (str(error).strip() or type(error).__name__).replace("\n", " ")[:500]
        figures |= {"refused": f"{type(error).__name__}: {said}"}
        keep(figures)
        if is_fatal(error):
            _start_again(deadline)
    gc.collect()
    torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    print(json.dumps({"name": row.name, **{k: v for k, v in figures.items() if k not in LONG}}), flush=True)
    return figures


LONG = ("floor", "recipe", "kernels", "seconds_each")
"""What is not printed."""


def _start_again(deadline: Deadline) -> None:
    more = ["--resume", "--until", str(deadline.until)]
    os.execv(sys.executable, [sys.executable, *sys.argv, *more])


def _measure(shape: Shape, row: Row, top: Ceilings, small: bool, deadline: Deadline, note: Note) -> None:
    device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
    recipe = Recipe.parse({"model": {"method": shape.family, "device": device}, **(row.stages or {})}, "row")
    note(recipe=recipe.to_yaml())
    pipeline = shape.make(device, dtype, small)
    reset_peak_memory()
    pipe, call = build(recipe, pipeline), shape.call(pipeline, small)
    pipe.clock.on_tick.append(deadline.check)
    cache = recipe.adapters.get("cache")
    if cache is not None and cache.wants_factors:
        cache.take(pipe, random_factors(pipe, call, getattr(cache, "rank", 0.125)))
    # the first generation compiles, chooses kernels and warms up; it is no part of what is timed
    started = now()
    generation(pipe, call, row.steps, 1 if row.single else None)
    note(first_generation=now() - started, compiled=pipe.compiled, notes=pipe.notes, before=gpu_state())
    steps = step_seconds(pipe, call, row.steps, TWICE if row.single else None)
    kinds = planned(pipe, row.steps)
    told = {"seconds_per_step": steps, "kinds": kinds, "peak_memory": peak_memory(), "after": gpu_state()}
    note(**told, compiled_when_warm=pipe.compiled, macs_ratio=pipe.passes.macs_ratio)
    if row.single:
        note(seconds=sum(steps.get(kind, 0.0) * count for kind, count in kinds.items()), summed_from_single_steps=True)
    else:
        _whole(pipe, call, row.steps, note, 1 if small else REPEATS)
    note(kernels=top_kernels(lambda: generation(pipe, call, row.steps, 1)))
    if row.single:
        return
    floor = floors(pipe, lambda: generate(pipe, call, min(FLOOR_STEPS, row.steps)), top)
    note(
        floor={kind: asdict(one) for kind, one in floor.items()},
        times_floor={kind: seconds / floor[kind].floor for kind, seconds in steps.items() if kind in floor},
        roofline={kind: roofline(one.linears.macs, one.attention.macs, top) for kind, one in floor.items()},
    )


def _whole(pipe: Pipe, call: dict[str, Any], steps: int, note: Note, repeats: int) -> None:
    totals: list[float] = []
    begun = now()
    while len(totals) < repeats and (not totals or now() - begun < SECONDS):
        totals.append(generate(pipe, call, steps))
        note(seconds=statistics.median(totals), seconds_each=totals)


def _peer(shape: Shape, row: Row, top: Ceilings, small: bool, deadline: Deadline, note: Note) -> None:
    """cache-dit's row: it patches classes, so it runs by itself; each line that it prints is what it knows so far."""
    script = Path(__file__).with_name("gpu_cachedit.py")
    command = [sys.executable, str(script), str(row.steps), str(row.interval), *(["--small"] if small else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=max(1.0, deadline.left))
        out, code, errors = done.stdout, done.returncode, done.stderr
    except subprocess.TimeoutExpired as late:
        out, code, errors = _text(late.stdout), None, ""
    figures = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    if figures:
        note(**figures[-1])
    if code is None:
        raise OutOfTime
    if code:
        note(refused=(errors.strip().splitlines() or ["it ended without a word"])[-1])


def _text(out: str | bytes | None) -> str:
    return out.decode(errors="replace") if isinstance(out, bytes) else out or ""


def no_video_is_written() -> None:
    """Video families ask for a package that writes videos; here none is written, and a stand-in will do."""
    name = "imageio_ffmpeg"
    if importlib.util.find_spec(name) is None:
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        sys.modules[name] = module


def write_recipes(file: Path, folder: Path) -> None:
    """The recipe of every row of a results file, as a file that `ditstack run` takes."""
    folder.mkdir(parents=True, exist_ok=True)
    data = json.loads(file.read_text())
    for row in data["rows"]:
        if "recipe" in row:
            name = re.sub(r"[^a-z0-9]+", "-", f"{data['case']} {row['name']}".lower()).strip("-")
            (folder / f"{name}.yaml").write_text(row["recipe"])


if __name__ == "__main__":
    main()
