"""Kill a batch again and again, go on each time, and see that every row has exactly one whole picture at the end.

    python benchmarks/batch_kill.py --prompts 200 --kills 10 --out /tmp/kill

Small by default. Each case ends with the same check: one manifest line and one file per prompt, checksums right,
pictures equal to those of an uninterrupted run, nothing temporary left.
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

SHAPES, COLORS = ("circle", "square", "triangle", "star"), ("red", "green", "blue", "yellow", "white")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("/tmp/ditstack-kill"))
    parser.add_argument("--cases", nargs="+", default=["two", "kill", "term", "int", "one-of-two"])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    shutil.rmtree(arguments.out, ignore_errors=True)
    arguments.out.mkdir(parents=True)
    prompts = arguments.out / "prompts.txt"
    prompts.write_text("".join(f"{prompt_of(place)}\n" for place in range(arguments.prompts)))
    case = Case(prompts, arguments.prompts, arguments.steps, arguments.batch_size)
    whole = case.run(arguments.out / "whole")
    assert whole == 0, f"the uninterrupted run ended with {whole}"
    for name in arguments.cases:
        print(f"{name}: {case.play(name, arguments.out / name, arguments.kills)}", flush=True)


def prompt_of(place: int) -> str:
    return f"a {COLORS[place % 5]} {SHAPES[place // 5 % 4]} in the center on a gray plain background"


class Case:
    """One prompts file, and the command that makes its pictures."""

    def __init__(self, prompts: Path, count: int, steps: int, batch_size: int) -> None:
        self.prompts, self.count = prompts, count
        self.more = ["--set", f"sampler.steps={steps}", "--batch-size", str(batch_size)]

    def start(self, folder: Path, devices: int = 1) -> subprocess.Popen[str]:
        command = [str(Path(sys.executable).parent / "ditstack")]
        command += ["batch", "tiny", str(self.prompts), "--out", str(folder), "--devices", str(devices), *self.more]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        log = folder.with_suffix(".log").open("a")
        return subprocess.Popen(command, stdout=log, stderr=log, text=True, env=environment, start_new_session=True)

    def run(self, folder: Path, devices: int = 1) -> int:
        return self.start(folder, devices).wait()

    def play(self, name: str, folder: Path, kills: int) -> str:
        if name == "two":
            assert self.run(folder, devices=2) == 0
            return f"two processes; {self.check(folder)}"
        if name == "one-of-two":
            return self.lose_one(folder)
        number = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}[name]
        codes, devices = [], 1
        for _ in range(kills):
            devices = 3 - devices
            codes.append(self.cut_off(folder, number, devices))
        code = self.run(folder, devices)
        assert code == 0, f"the last run ended with {code}; see {folder.with_suffix('.log')}"
        return f"ended with {codes}, then 0; {self.check(folder)}"

    def cut_off(self, folder: Path, number: signal.Signals, devices: int) -> tuple[int, int]:
        """Start, and stop at a random moment: mostly while pictures appear, sometimes earlier. Code and pictures."""
        process = self.start(folder, devices)
        before = pictures(folder)
        if random.random() < 0.8:
            while process.poll() is None and pictures(folder) == before:
                time.sleep(0.02)
        time.sleep(random.random() * 1.5)
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number) if random.random() < 0.5 else os.killpg(process.pid, number)
        code = process.wait()
        return code, pictures(folder)

    def lose_one(self, folder: Path) -> str:
        """Kill the second process of two: the first ends with a sentence, and the command goes on."""
        process = self.start(folder, devices=2)
        while pictures(folder) < 2:
            time.sleep(0.05)
            assert process.poll() is None, "the run ended before a process could be killed"
        child = children(process.pid)[0]
        os.kill(child, signal.SIGKILL)
        code = process.wait()
        log = folder.with_suffix(".log").read_text()
        sentence = next((line for line in log.splitlines() if "was killed by signal 9" in line), "")
        assert code == 2, f"ended with {code}"
        assert sentence, log
        assert self.run(folder, devices=2) == 0
        return f"ended with {code}, {sentence!r}, then 0; {self.check(folder)}"

    def check(self, folder: Path) -> str:
        lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
        assert sorted(line["number"] for line in lines) == list(range(self.count)), "rows missing or twice"
        files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        known = {"batch.json", "recipe.yaml", "report.json", "manifest.jsonl"}
        assert files == known | {line["file"] for line in lines}, f"strange files: {sorted(files - known)[:5]}"
        equal = 0
        for line in lines:
            data = (folder / line["file"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == line["sha256"], f"{line['file']} is torn"
            equal += data == (folder.parent / "whole" / line["file"]).read_bytes()
        assert equal == self.count, f"only {equal} of {self.count} files equal those of the uninterrupted run"
        return f"{len(lines)} whole files, each once, all equal to the uninterrupted run's"


def pictures(folder: Path) -> int:
    return sum(1 for path in (folder / "pictures").glob("*.png") if not path.name.startswith("."))


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


if __name__ == "__main__":
    main()
