"""The book of a ladder: each row is in its file at once, a later run goes on, and time is kept inside rows."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from results import place_of, write

SPENT = "the budget of seconds was spent"
QUERY = "clocks.sm,clocks.mem,power.draw,temperature.gpu"


class OutOfTime(BaseException):
    """The budget was spent inside a row; no guard against errors may take it for one."""


class Deadline:
    """Until when may be measured: seconds of the epoch, so that a process that is started again keeps to it."""

    def __init__(self, budget: float, until: float | None = None) -> None:
        self.until = time.time() + budget if until is None else until

    @property
    def left(self) -> float:
        return self.until - time.time()

    def check(self, *_: Any) -> None:
        """Raises OutOfTime once it is over."""
        if self.left <= 0:
            raise OutOfTime


class Book:
    """One case's file.

    Args:
        folder: None takes the day's folder of this machine.
        resume: go on with the rows that are there; else begin anew.
    """

    def __init__(self, case: str, folder: Path | None, resume: bool) -> None:
        self.case, self.folder = case, folder
        self.path = place_of(case) if folder is None else folder / f"{case}.json"
        self.data: dict[str, Any] = {"rows": []}
        if resume and self.path.is_file():
            self.data = json.loads(self.path.read_text())

    def done(self, name: str) -> bool:
        """Whether a row needs no second try: one that was cut short does."""
        return any(row["name"] == name and not is_cut(row) for row in self.data["rows"])

    def put(self, row: dict[str, Any], **told: Any) -> None:
        """Write a row, in the place of the one of the same name."""
        places = [place for place, one in enumerate(self.data["rows"]) if one["name"] == row["name"]]
        if places:
            self.data["rows"][places[0]] = row
        else:
            self.data["rows"].append(row)
        self.data |= told
        write(self.case, {key: one for key, one in self.data.items() if key not in ("case", "machine")}, self.folder)


def is_cut(row: dict[str, Any]) -> bool:
    """Whether a row ended because time did."""
    return SPENT in (row.get("refused"), row.get("cut"))


class Ticks:
    """When steps end: events on a GPU, which make nobody wait, else the clock."""

    def __init__(self) -> None:
        self.marks: list[Any] = []

    def mark(self, *_: Any) -> None:
        if not torch.cuda.is_available():
            self.marks.append(time.perf_counter())
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()  # pyright: ignore[reportCallIssue]
        self.marks.append(event)

    def seconds(self) -> list[float]:
        """Between each mark and the next."""
        pairs = list(zip(self.marks, self.marks[1:], strict=False))
        if not torch.cuda.is_available():
            return [end - begun for begun, end in pairs]
        torch.cuda.synchronize()
        return [begun.elapsed_time(end) / 1e3 for begun, end in pairs]


def gpu_state() -> dict[str, float] | None:
    """Clocks in MHz, watts and degrees now, where nvidia-smi is."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    values = done.stdout.strip().splitlines()[:1]
    if done.returncode or not values:
        return None
    read = zip(QUERY.split(","), values[0].split(","), strict=True)
    return {name: float(value) for name, value in read if value.strip().replace(".", "", 1).isdigit()}


def top_kernels(run: Callable[[], Any], most: int = 10) -> list[dict[str, Any]]:
    """The kernels that take the most time of a call: names, milliseconds, launches; none without a GPU."""
    if not torch.cuda.is_available():
        run()
        return []
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        run()
        torch.cuda.synchronize()
    found = sorted(seen.key_averages(), key=lambda one: one.device_time_total, reverse=True)[:most]
    return [{"name": one.key[:120], "ms": one.device_time_total / 1e3, "launches": one.count} for one in found]


def is_fatal(error: BaseException) -> bool:
    """Whether a process can launch nothing more after this error."""
    if isinstance(error, torch.OutOfMemoryError):
        return False
    return isinstance(error, getattr(torch, "AcceleratorError", ())) or "CUDA error" in str(error)
