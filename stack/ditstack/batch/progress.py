"""Progress: how far a batch is, over all its processes: a bar on a terminal, elsewhere a line every few seconds."""

from __future__ import annotations

import json
import sys
import threading
import time
from datetime import UTC, datetime
from typing import Any, NamedTuple

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ditstack.batch.data import PromptData
from ditstack.batch.pictures import PictureWriter

SECONDS = 5.0
"""Between two lines."""


class State(NamedTuple):
    """How far a run is; what was there before it counts as done."""

    done: int
    total: int
    failed: int
    rates: list[float]
    """Pictures per second of each process."""

    @property
    def rate(self) -> float:
        return sum(self.rates)

    @property
    def left(self) -> float | None:
        """Seconds; None before the first picture."""
        return max(self.total - self.done - self.failed, 0) / self.rate if self.rate else None


class Count:
    """Counts the lines of every process's part of the manifest, which is how the first one knows of the others."""

    def __init__(self, data: PromptData) -> None:
        self.data = data
        self.began = time.monotonic()
        self._counts: dict[str, list[int]] = {}

    def state(self) -> State:
        made = self._made()
        seconds = max(time.monotonic() - self.began, 1e-9)
        rows = self.data.spec.source.rows if self.data.spec.source else 0
        failed = self.data.writer.failed if self.data.writer else 0
        done = self.data.finished_before + sum(made)
        total = max(rows, self.data.asked_for, done + failed)
        return State(done, total, failed, [count / seconds for count in made])

    def _made(self) -> list[int]:
        """Pictures by process."""
        folder = self.data.spec.folder
        for name in folder.names("parts"):
            if name.startswith("manifest-"):
                known = self._counts.setdefault(name, [0, 0])
                data = folder.grown(f"parts/{name}", known[0])
                self._counts[name] = [known[0] + len(data), known[1] + data.count(b"\n")]
        ranks = sorted({_rank(name) for name in self._counts})
        return [sum(one[1] for name, one in self._counts.items() if _rank(name) == rank) for rank in ranks]


class Bar(L.Callback):
    """For a terminal."""

    def __init__(self, data: PromptData, writer: PictureWriter, console: Console) -> None:
        self.count, self.console = Count(data), console
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rates]}"))
        self.bar = Progress(
            *columns, TimeElapsedColumn(), TimeRemainingColumn(elapsed_when_finished=True), console=console
        )
        self.task = self.bar.add_task("", total=None, rates="")
        writer.tick.append(self.show)

    def tell(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.count.began = time.monotonic()
        self.bar.start()

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.show()

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.bar.stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.bar.stop()

    def show(self) -> None:
        """Read what has been added since, and redraw."""
        state = self.count.state()
        each = [f"{rate:.2f}" for rate in state.rates]
        rates = f"{state.rate:.2f}/s" + (f" ({' + '.join(each)})" if len(each) > 1 else "")
        through = state.done + state.failed
        self.bar.update(self.task, completed=through, total=max(state.total, through), rates=rates)


class Lines(L.Callback):
    """For a log: a line at once and then every few seconds, as text or as JSON for collectors."""

    def __init__(self, data: PromptData, as_json: bool) -> None:
        self.count, self.as_json = Count(data), as_json
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def tell(self, text: str) -> None:
        """A sentence on what is being done."""
        self._print(text, {"event": "note", "text": text})

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.count.began = time.monotonic()
        self._thread.start()

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._end()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._end()

    def _end(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        self._show()
        while not self._ended.wait(SECONDS):
            self._show()

    def _show(self) -> None:
        state = self.count.state()
        found = {"done": state.done, "total": state.total, "failed": state.failed}
        left = None if state.left is None else round(state.left, 1)
        figures = {"per_second": round(state.rate, 3), "seconds_left": left}
        failed = f", {state.failed} failed" if state.failed else ""
        ahead = "" if left is None else f", {_spell(left)} left"
        text = f"{state.done} of {state.total} done{failed}, {state.rate:.2f} per second{ahead}"
        self._print(text, {"event": "progress", **found, **figures})

    def _print(self, text: str, fields: dict[str, Any]) -> None:
        now = datetime.now(UTC)
        stamped = {"time": now.isoformat(timespec="seconds"), **fields}
        line = json.dumps(stamped) if self.as_json else f"{now.astimezone():%H:%M:%S} {text}"
        print(line, file=sys.stderr, flush=True)


def _rank(name: str) -> str:
    return name.split("-")[1].partition(".")[0]


def _spell(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
