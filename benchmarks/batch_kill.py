"""Kill a batch again and again, go on each time, and see that every row has exactly one whole picture at the end.

    python benchmarks/batch_kill.py --prompts 200 --kills 10 --steps 2 --batch-size 8

Each case ends with the same check: one manifest line and one file per prompt, checksums right, every file equal to
that of an uninterrupted run, nothing temporary left. A case that is through is kept under --out and not played again.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ditstack.files import write_atomically
from results import write

SHAPES, COLORS = ("circle", "square", "triangle", "star"), ("red", "green", "blue", "yellow", "white")
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}
CASES = ["two", *SIGNALS, "one-of-two"]
EARLY, LATE = 10.0, 0.5
"""Seconds after the start, or after the first new picture, within which a signal comes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("/tmp/ditstack-kill"))
    parser.add_argument("--cases", nargs="+", default=CASES, choices=CASES)
    wanted = parser.parse_args()
    settings = {name: getattr(wanted, name) for name in ("prompts", "kills", "steps", "batch_size", "seed")}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background of a shell inherits none
    case = Case(wanted.out, **settings)
    case.prepare(settings)
    for name in wanted.cases:
        print(f"{name}: {json.dumps(case.outcome(name))}", flush=True)
    if set(wanted.cases) == set(CASES):
        report = json.loads((wanted.out / "whole" / "report.json").read_text())
        write("batch_kill", {**settings, "cases": {name: case.outcome(name) for name in CASES}, "report": report})


def prompt_of(place: int) -> str:
    return f"a {COLORS[place % 5]} {SHAPES[place // 5 % 4]} in the center on a plain gray background"


class Case:
    """One prompts file, the command that makes its pictures, and what was done to it."""

    recipe, beside = "tiny", ()
    """What is run, and files that it writes beside those of every batch."""

    def __init__(self, out: Path, prompts: int, kills: int, steps: int, batch_size: int, seed: int) -> None:
        self.out, self.count, self.kills, self.seed = out, prompts, kills, seed
        self.prompts = out / "prompts.txt"
        self.more = ["--set", f"sampler.steps={steps}", "--set", "model.device=cpu", "--batch-size", str(batch_size)]

    def prepare(self, settings: dict[str, int]) -> None:
        """The uninterrupted run, unless it is there already with the same settings."""
        kept = self.out / "settings.json"
        if not kept.is_file() or json.loads(kept.read_text()) != settings:
            shutil.rmtree(self.out, ignore_errors=True)
            self.out.mkdir(parents=True)
            self.prompts.write_text("".join(f"{prompt_of(place)}\n" for place in range(self.count)))
            write_atomically(kept, json.dumps(settings).encode())
        self.must_end_well(self.out / "whole", 1)

    def outcome(self, name: str) -> dict[str, Any]:
        """What a case came to: played now, or kept from before."""
        kept, folder = self.out / f"{name}.json", self.out / name
        if not kept.is_file():
            shutil.rmtree(folder, ignore_errors=True)
            folder.with_suffix(".log").unlink(missing_ok=True)
            random.seed(f"{self.seed} {name}")
            write_atomically(kept, json.dumps(self.play(name, folder) | self.check(folder)).encode())
        return json.loads(kept.read_text())

    def play(self, name: str, folder: Path) -> dict[str, Any]:
        if name == "two":
            self.must_end_well(folder, 2)
            return {"stops": []}
        if name == "one-of-two":
            return self.lose_one(folder)
        stops = [self.cut_off(folder, SIGNALS[name], 1 + place % 2) for place in range(self.kills)]
        self.must_end_well(folder, 2)
        return {"stops": stops}

    def start(self, folder: Path, devices: int) -> subprocess.Popen[str]:
        command = [str(Path(sys.executable).parent / "ditstack")]
        command += [
            "batch",
            self.recipe,
            str(self.prompts),
            "--out",
            str(folder),
            "--devices",
            str(devices),
            *self.more,
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with folder.with_suffix(".log").open("a") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, text=True, env=environment, start_new_session=True)

    def must_end_well(self, folder: Path, devices: int) -> None:
        code = self.start(folder, devices).wait()
        assert code == 0, f"the run ended with {code}; see {folder.with_suffix('.log')}"

    def cut_off(self, folder: Path, number: signal.Signals, devices: int) -> dict[str, int]:
        """Start, and stop at a random moment: mostly while pictures appear, one time in five at any earlier one."""
        before = pictures(folder)
        process = self.start(folder, devices)
        if random.random() < 0.8:
            while process.poll() is None and pictures(folder) == before:
                time.sleep(0.02)
            time.sleep(random.random() * LATE)
        else:
            time.sleep(random.random() * EARLY)
        whole_group = random.random() < 0.5
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number) if whole_group else process.send_signal(number)
        code = process.wait()
        return {"processes": devices, "code": code, "before": before, "pictures": pictures(folder)}

    def lose_one(self, folder: Path) -> dict[str, Any]:
        """Kill the second process of two: the first ends with a sentence, and the command goes on."""
        process = self.start(folder, 2)
        while pictures(folder) < 2:
            time.sleep(0.05)
            assert process.poll() is None, "the run ended before a process could be killed"
        before = pictures(folder)
        os.kill(children(process.pid)[0], signal.SIGKILL)
        code = process.wait()
        log = folder.with_suffix(".log").read_text()
        sentence = next((line for line in log.splitlines() if "was killed by signal 9" in line), "")
        assert code == 2, f"ended with {code}"
        assert sentence, log
        stop = {"processes": 2, "code": code, "before": before, "pictures": pictures(folder)}
        self.must_end_well(folder, 2)
        return {"stops": [stop], "sentence": sentence}

    def check(self, folder: Path) -> dict[str, int]:
        lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
        assert sorted(line["number"] for line in lines) == list(range(self.count)), "rows missing or twice"
        files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        known = {".ditstack", "batch.json", "batch.html", "recipe.yaml", "report.json", "manifest.jsonl", *self.beside}
        assert files == known | {line["file"] for line in lines}, f"strange files: {sorted(files - known)[:5]}"
        equal = 0
        for line in lines:
            data = (folder / line["file"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == line["sha256"], f"{line['file']} is torn"
            equal += data == (self.out / "whole" / line["file"]).read_bytes()
        assert equal == self.count, f"only {equal} of {self.count} files equal those of the uninterrupted run"
        return {"files": len(files) - len(known), "lines": len(lines), "equal": equal}


def pictures(folder: Path) -> int:
    return sum(1 for path in (folder / "pictures").glob("*.png") if not path.name.startswith("."))


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


if __name__ == "__main__":
    main()
