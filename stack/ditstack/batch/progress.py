"""Bar: how far a batch is, over all its processes, with the rate of each."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ditstack.batch.predict import PictureWriter, PromptData


class Bar(L.Callback):
    """Counts the lines of every process's part of the manifest, which is how the first one knows of the others."""

    def __init__(self, data: PromptData, writer: PictureWriter, console: Console) -> None:
        self.data = data
        self.began = time.monotonic()
        self.counts: dict[Path, list[int]] = {}
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rates]}"))
        self.bar = Progress(
            *columns, TimeElapsedColumn(), TimeRemainingColumn(elapsed_when_finished=True), console=console
        )
        self.task = self.bar.add_task("", total=None, rates="")
        writer.tick.append(self.show)

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.began = time.monotonic()
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
        made = self.lines()
        seconds = max(time.monotonic() - self.began, 1e-9)
        each = [f"{count / seconds:.2f}" for count in made]
        rates = f"{sum(made) / seconds:.2f}/s" + (f" ({' + '.join(each)})" if len(each) > 1 else "")
        rows = self.data.spec.source.rows if self.data.spec.source else 0
        total = max(rows, self.data.asked_for)
        failed = self.data.writer.failed if self.data.writer else 0
        through = self.data.finished_before + sum(made) + failed
        self.bar.update(self.task, completed=through, total=max(total, through), rates=rates)

    def lines(self) -> list[int]:
        """Pictures by process."""
        for path in sorted(self.data.spec.ledger.parts.glob("manifest-*.jsonl")):
            known = self.counts.setdefault(path, [0, 0])
            with path.open("rb") as file:
                file.seek(known[0])
                data = file.read()
            self.counts[path] = [known[0] + len(data), known[1] + data.count(b"\n")]
        return [count for _, count in self.counts.values()]
