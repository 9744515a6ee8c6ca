"""Kill batches of rounded and calibrated stacks, on a disk and a bucket, one process and two, files and shards.

    PYTHONPATH=tests/support python benchmarks/batch_stacks.py --prompts 200 --kills 10

Cases: `s3` (a local S3 server) and `two` (two processes on a disk) with weights in 8 bits; `int8` and `icc` as files
and as shards, with SIGKILLs on one process and on two in turn, calibration inside; `full` (a disk that is full in the
middle, then has room again; it mounts a small tmpfs, so it asks for root). Each ends with every row exactly once, and
with every picture equal to that of an undisturbed run. A case that is through is kept under --out, not played again.
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batch_kill import prompt_of
from ditstack.batch.store.folder import Folder, folder_of
from ditstack.files import write_atomically
from results import write

INT8, ICC = "tiny-int8-native-svdcache", "tiny-none-native-icc"
SAID = ["a red circle in the center on a plain gray background", "a blue star in the top left on a pink background"]
CHANGES = {INT8: ["sampler.steps=3"], ICC: ["sampler.steps=4", f"calibration={json.dumps(SAID)}"]}
CASES = ["s3", "two", "int8-files", "int8-shards", "icc-files", "icc-shards", "full-files", "full-shards"]
EARLY, LATE = 30.0, 0.5
"""Seconds after the start, or after the first new picture, within which a signal comes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--combined-prompts", type=int, default=96)
    parser.add_argument("--combined-kills", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("/tmp/ditstack-stacks"))
    parser.add_argument("--cases", nargs="+", default=CASES, choices=CASES)
    wanted = parser.parse_args()
    settings = {name: value for name, value in vars(wanted).items() if name not in ("out", "cases")}
    wanted.out.mkdir(parents=True, exist_ok=True)
    for name in wanted.cases:
        print(f"{name}: {json.dumps(outcome(name, wanted.out, settings))}", flush=True)
    kept = {name: wanted.out / f"{name}.json" for name in CASES}
    if all(file.is_file() for file in kept.values()):
        write("batch_stacks", {**settings, "cases": {name: json.loads(kept[name].read_text()) for name in CASES}})


def outcome(name: str, out: Path, settings: dict[str, int]) -> dict[str, Any]:
    """What a case came to: played now, or kept from before with the same settings."""
    kept = out / f"{name}.json"
    found = json.loads(kept.read_text()) if kept.is_file() else {}
    if found.get("settings") != settings:
        random.seed(f"{settings['seed']} {name}")
        with place_of(name, out) as place:
            found = play(name, place, out, settings)
        write_atomically(kept, json.dumps({**found, "settings": settings}).encode())
    return found


@contextlib.contextmanager
def place_of(name: str, out: Path) -> Iterator[str]:
    """Where a case is played: an empty folder, a bucket, or a small disk."""
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    if name == "s3":
        from s3 import bucket

        with bucket() as url:
            yield f"{url}/out"
    elif name.startswith("full"):
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], check=True)
        try:
            yield str(folder / "out")
        finally:
            subprocess.run(["umount", str(folder)], check=True)
    else:
        yield str(folder)


def play(name: str, place: str, out: Path, settings: dict[str, int]) -> dict[str, Any]:
    combined = name not in ("s3", "two")
    count, kills = (settings[f"combined_{key}" if combined else key] for key in ("prompts", "kills"))
    run = Run(ICC if name.startswith("icc") else INT8, out, count, settings["batch_size"], 5 if "shards" in name else 0)
    whole = run.undisturbed()
    if name.startswith("full"):
        stops = [run.fill_up(place, sum(map(len, whole.values())) // 2)]
    else:
        devices = {"s3": [1], "two": [2]}.get(name, [1, 2])
        stops = [run.kill(place, devices[turn % len(devices)], count // (kills + 1)) for turn in range(kills)]
    run.must_end_well(place, 1 if name == "s3" else 2)
    return {"recipe": run.recipe, "rows": count, "stops": stops, **compare(folder_of(place), whole, count)}


class Run:
    """One command, its prompts, and the folder for factors that a machine of its own would have."""

    def __init__(self, recipe: str, out: Path, count: int, batch_size: int, shards: int) -> None:
        self.recipe, self.out, self.count, self.shards = recipe, out, count, shards
        self.prompts = out / f"prompts-{count}.txt"
        self.prompts.write_text("".join(f"{prompt_of(place)}\n" for place in range(count)))
        changes = [*CHANGES[recipe], "model.device=cpu"]
        self.more = [word for change in changes for word in ("--set", change)] + ["--batch-size", str(batch_size)]

    def undisturbed(self) -> dict[int, bytes]:
        """The pictures of a run that nothing happened to, by number: files, whatever is compared with them."""
        folder = self.out / f"whole-{self.recipe}-{self.count}"
        self.must_end_well(str(folder), 1, shards=0)
        return pictures(folder_of(folder))

    def start(self, place: str, devices: int, shards: int | None = None) -> subprocess.Popen[str]:
        name = place.rstrip("/").replace("/", "_").replace(":", "")
        command = [
            str(Path(sys.executable).parent / "ditstack"),
            "batch",
            self.recipe,
            str(self.prompts),
            "--out",
            place,
        ]
        command += ["--devices", str(devices), "--shards", str(self.shards if shards is None else shards), *self.more]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "DITSTACK_HOME": str(self.out / "homes" / name)}
        with (self.out / f"{name[-60:]}.log").open("a") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, text=True, env=environment, start_new_session=True)

    def must_end_well(self, place: str, devices: int, shards: int | None = None) -> None:
        code = self.start(place, devices, shards).wait()
        assert code == 0, f"{place}: the run ended with {code}; see {self.out}/*.log"

    def kill(self, place: str, devices: int, share: int) -> dict[str, Any]:
        """Start, and SIGKILL at a random moment: mostly while pictures appear, one time in four at any earlier one.

        Args:
            share: of the pictures, so many at most are new when it comes, so that every kill finds a run to kill.
        """
        before = size(place)
        process = self.start(place, devices)
        early = random.random() >= 0.75
        end = time.monotonic() + random.random() * EARLY if early else None
        while process.poll() is None and (new := size(place) - before) < (share // (self.shards or 1) or 1):
            if end is None and new:
                end = time.monotonic() + random.random() * LATE
            if end is not None and time.monotonic() >= end:
                break
            time.sleep(0.2 if "://" in place else 0.02)
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                group = random.random() < 0.5
                os.killpg(process.pid, signal.SIGKILL) if group else process.kill()
        code = process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 0)
            time.sleep(1.0)  # the second process notices by itself
        return {"processes": devices, "code": code, "before": before, "there": size(place)}

    def fill_up(self, place: str, room: int) -> dict[str, Any]:
        """Run until the disk is full, see one sentence, and make room."""
        disk = str(Path(place).parent)
        subprocess.run(["mount", "-o", f"remount,size={max(room, 2**17)}", disk], check=True)
        code = self.start(place, 1).wait()
        log = max(self.out.glob("*out.log"), key=lambda path: path.stat().st_mtime).read_text()
        said = [line for line in log.splitlines() if "No space left on device" in line]
        assert code == 2, f"ended with {code}"
        assert len(said) == 1, log[-2000:]
        assert "Traceback" not in log, log[-2000:]
        there = size(place)
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        return {"processes": 1, "code": code, "before": 0, "there": there, "said": said[0][-120:]}


def size(place: str) -> int:
    """Pictures or shards that are there."""
    folder = folder_of(place)
    return sum(1 for inner in ("pictures", "shards") for name in folder.names(inner) if not name.startswith("."))


def pictures(folder: Folder) -> dict[int, bytes]:
    """Every picture by its number, each once and as its line says."""
    found: dict[int, bytes] = {}
    for line in map(json.loads, folder.lines("manifest.jsonl")):
        data, start = folder.read(line["file"]), line.get("offset", 0)
        assert data is not None, f"{line['file']} is missing"
        data = data[start : start + line["bytes"]] if "member" in line else data
        assert hashlib.sha256(data).hexdigest() == line["sha256"], f"{line['file']} is torn"
        assert line["number"] not in found, f"picture {line['number']} is there twice"
        found[line["number"]] = data
    return found


def compare(folder: Folder, whole: dict[int, bytes], count: int) -> dict[str, int]:
    found = pictures(folder)
    assert sorted(found) == list(range(count)), "rows missing"
    assert json.loads(folder.read("report.json") or b"{}")["complete"], "the report says that it is not complete"
    names = {name for name in folder.names() if name != "parts"}
    known = {"batch.json", "batch.html", "recipe.yaml", "report.json", "manifest.jsonl", "pictures", "shards"}
    known |= {"factors", ".ditstack"}
    assert names <= known, f"strange files: {sorted(names - known)}"
    shards = folder.names("shards")
    assert shards == [f"{number:08d}.tar" for number in range(len(shards))], "shards with gaps"
    objects = len(folder.names("pictures")) or len(shards)
    equal = sum(whole[number] == data for number, data in found.items())
    assert equal == count, f"only {equal} of {count} pictures equal those of an undisturbed run"
    return {"files": objects, "lines": len(found), "equal": equal}


if __name__ == "__main__":
    main()
