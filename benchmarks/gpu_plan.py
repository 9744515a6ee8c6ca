"""The measuring plan for one GPU: five slices of ten minutes, which may be cut at any moment and taken up again.

    python benchmarks/gpu_plan.py --slice 1 --out FOLDER [--budget 570]
    python benchmarks/gpu_plan.py --dry-run            what each slice measures, and about how long it takes
    python benchmarks/gpu_plan.py --rehearse --out FOLDER    all slices in small, on any machine

1 tests, kernels, bf16   2 fp8, the best stacks, cache-dit   3 icc, sparse, mixed, int8, nf4, 50 steps   4 HunyuanVideo
by single steps, PixArt, DiT   5 what the others left over, and some training of a twin, on the machine's CPU. Every
part is a process of its own, and what it knows is in FOLDER at once: at most eight files. Compile caches lie beside it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gpu_rows import FULL, ladder

HERE = Path(__file__).parent
LADDERS = {1: ("flux",), 2: ("flux",), 3: ("flux",), 4: ("hunyuanvideo", "pixart", "dit"), 5: tuple(FULL)}
"""The ladders of which each slice runs its part; the last takes up what was cut."""
TESTS, KERNELS, TRAINING = 90.0, 110.0, 60.0
"""Most seconds of the gpu tests, of the kernels and of training."""
SMALL = 8.0
"""Seconds of training in a rehearsal."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slice", type=int, choices=LADDERS)
    parser.add_argument("--out", type=Path, default=Path("out/gpu"))
    parser.add_argument("--budget", type=float, default=570.0)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--rehearse", action="store_true")
    wanted = parser.parse_args()
    slices = [wanted.slice] if wanted.slice else list(LADDERS)
    if wanted.dry_run:
        print("\n".join(line for one in slices for line in told(one)))
        return
    wanted.out.mkdir(parents=True, exist_ok=True)
    for one in slices:
        began = time.monotonic()
        run(one, wanted.out.resolve(), wanted.budget, wanted.rehearse)
        print(f"slice {one}: {time.monotonic() - began:.0f} s", flush=True)


def told(number: int) -> list[str]:
    """What a slice measures and how long that takes, about."""
    lines, total = [], 0.0
    for name, _, seconds in parts(number, Path("OUT"), small=False):
        lines.append(f"  {name}, about {seconds:.0f} s")
        total += seconds
    return [f"slice {number}, about {total:.0f} s:", *lines]


def parts(number: int, out: Path, small: bool) -> list[tuple[str, list[str], float]]:
    """The parts of a slice: a name, a command without its Python, and about how many seconds."""
    more = ["--small"] if small else []
    found: list[tuple[str, list[str], float]] = []
    if number == 1:
        tests = ["-m", "pytest", "-q", "-n", "0", "-m", "gpu", "tests/gpu"]
        found.append(("tests marked gpu", tests, TESTS))
        found.append(("kernels", ["benchmarks/gpu_kernels.py", "--out", str(out), "--resume", *more], KERNELS))
    for case in LADDERS[number]:
        part = [] if number == max(LADDERS) else ["--part", str(number)]
        rows = [row for row in ladder(case, small) if not part or row.part == number]
        command = ["benchmarks/gpu.py", "--case", case, "--out", str(out), "--resume", *part, *more]
        seconds = sum(row.seconds(case) for row in rows) if part else 60.0
        found.append(
            (f"{case}: {', '.join(row.name for row in rows)}" if part else f"{case}: left over", command, seconds)
        )
    if number == max(LADDERS):
        twin, eager = Path(tempfile.gettempdir()) / "twin", ["--eager"] if small else []
        training = ["-m", "twinning.train", "dit", str(twin), *eager]
        found.append(("training of a twin", training, SMALL if small else TRAINING))
    return found


def run(number: int, out: Path, budget: float, small: bool) -> None:
    """One slice; a part that ends badly or too late loses nothing but itself."""
    until = time.time() + budget
    environment = {**os.environ, "PYTHONPATH": _path(), "TORCHINDUCTOR_CACHE_DIR": str(out.parent / "compiled")}
    for name, command, seconds in parts(number, out, small):
        left = until - time.time()
        if left <= 5:
            print(f"{name}: the budget of seconds was spent", flush=True)
            continue
        if "benchmarks/gpu.py" in command:
            command = [*command, "--until", str(until - 3)]
        elif "twinning.train" in command:
            end = datetime.now(UTC) + timedelta(seconds=min(seconds, left - 3))
            command = [*command, "--end", end.replace(tzinfo=None).isoformat(timespec="seconds")]
        limit = left if "benchmarks/gpu.py" in command else min(left, 2 * seconds + 60)
        log = out / "log.txt"
        with log.open("a") as kept:
            kept.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {' '.join(command)}\n")
            kept.flush()
            try:
                done = subprocess.run([sys.executable, *command], cwd=HERE.parent, env=environment, timeout=limit,
                                      stdout=kept, stderr=subprocess.STDOUT, check=False)  # fmt: skip
                print(f"{name[:60]}: ended with {done.returncode}", flush=True)
            except subprocess.TimeoutExpired:
                print(f"{name[:60]}: cut after {limit:.0f} s", flush=True)


def _path() -> str:
    rooms = ("stack", "adapters", "benchmarks", "tests/support")
    return os.pathsep.join([*(str(HERE.parent / one) for one in rooms), os.environ.get("PYTHONPATH", "")])


if __name__ == "__main__":
    main()
