"""Pictures: the callback that writes every prediction as it comes, and closes the books at the end."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter

from ditstack.batch import page
from ditstack.batch.data import PromptData
from ditstack.batch.encode import Format
from ditstack.batch.report import BatchReport, kept_promise, summarise
from ditstack.batch.spec import BatchSpec
from ditstack.batch.stopping import Stopping
from ditstack.batch.store.folder import write
from ditstack.batch.writer import Writer
from ditstack.stack import Stack


class PictureWriter(BasePredictionWriter):
    """Writes every picture and its line as it comes, and closes the books at the end.

    Args:
        folder: for data that is not a PromptData, whose spec names its own; else `pictures` in the Trainer's
            `default_root_dir`.
        format: of the files; the same.
    """

    def __init__(self, folder: str | Path | None = None, format: Format = "png") -> None:
        super().__init__("batch")
        self.folder = folder
        self.format: Format = format
        self.report: BatchReport | None = None
        """In the first process, once all have ended."""
        self.tick: list[Callable[[], None]] = []
        """Called while the first process waits for others."""
        self.began = 0.0
        self.taken = 0
        """Batches that were written."""
        self.writer: Writer | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        # our batches carry their own numbers, so the indices that Lightning looks for are not missed
        warnings.filterwarnings("ignore", "Couldn't infer the batch indices", UserWarning)
        data, self.taken = _data(trainer), 0
        if data is not None:
            data.writer = self.writer = Writer(data.spec, trainer.global_rank, trainer.world_size, data.done)
        else:
            self.writer = self._writer_of_foreign(trainer, pl_module)

    def _writer_of_foreign(self, trainer: L.Trainer, pl_module: Any) -> Writer:
        folder = Path(trainer.default_root_dir) / "pictures" if self.folder is None else self.folder
        spec = BatchSpec(pl_module.recipe, "-", folder, format=self.format)
        if trainer.global_rank == 0:
            spec.begin_without_rows()
        trainer.strategy.barrier("the folder of pictures")
        spec.ledger.join()
        return Writer(spec, trainer.global_rank, trainer.world_size, spec.ledger.done())

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if (data := _data(trainer)) is not None:
            data.stopping.listen()  # over Lightning's own handlers, which talk to other processes from inside a signal
            data.stopping.sampling = True
        self.began = time.perf_counter()

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        assert self.writer is not None
        self.writer.take(prediction)
        self.taken += 1
        for logger in trainer.loggers:
            seconds = time.perf_counter() - self.began
            logger.log_metrics({"pictures_per_second": self.writer.written / seconds}, batch_idx)

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data, writer = _data(trainer), self.writer
        stopping = data.stopping if data else Stopping()
        assert writer is not None
        notes = {"notes": getattr(getattr(pl_module, "stack", None), "departed", [])}
        writer.close({"rank": trainer.global_rank, **notes, **_sampled(pl_module), **self._session(data)})
        if trainer.global_rank == 0:
            self._wait(writer.spec, trainer.world_size, stopping)
            self._report(writer, trainer.world_size, getattr(pl_module, "stack", None))
        writer.spec.ledger.leave()
        stopping.sampling = False
        stopping.leave()

    def _session(self, data: PromptData | None) -> dict[str, Any]:
        whole = data is None or (data.exhausted and self.taken == data.given and not data.stopping.signal)
        return {"elapsed": time.perf_counter() - self.began, "stopped": not whole}

    def _report(self, writer: Writer, world: int, stack: Stack | None) -> None:
        spec = writer.spec
        totals = spec.ledger.close(world)
        self.report = summarise(spec.recipe, totals, writer.before, spec.size)
        departed = dict.fromkeys(note for one in totals for note in one.get("notes", []))
        self.report.notes = [*spec.ledger.repaired, *(stack.pipe.notes if stack is not None else []), *departed]
        if spec.certificate is not None:
            self.report.promise = kept_promise(spec.certificate, spec.ledger.entries())
        if stack is not None:
            self.report.weights = stack.weights
        # a call that found nothing left to do does not hide how fast the pictures were made
        if self.report.written or not _was_complete(spec):
            write(spec.folder, "report.json", self.report.model_dump_json(indent=2).encode())
            self.report.notes += [why] if (why := page.write(spec, self.report)) else []
        spec.ledger.finish()

    def _wait(self, spec: BatchSpec, world: int, stopping: Stopping) -> None:
        """Until all processes have left their totals; by file, since a device may be hours behind another."""
        wanted = {f"totals-{rank}.json" for rank in range(world)}
        while not wanted <= set(spec.folder.names("parts")):
            stopping.check()
            self._tell()
            time.sleep(0.1)
        self._tell()

    def _tell(self) -> None:
        for tell in self.tick:
            tell()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if (data := _data(trainer)) is not None:
            data.stopping.sampling = False
            data.stopping.leave()
        if self.writer:
            self.writer.abandon()
            self.writer.spec.ledger.leave()


def _data(trainer: L.Trainer) -> PromptData | None:
    """The rows of a spec; None where the data is another's."""
    data = getattr(trainer, "datamodule", None)
    return data if isinstance(data, PromptData) else None


def _was_complete(spec: BatchSpec) -> bool:
    """Whether the report that lies there is whole, and of a run that was through."""
    try:
        return json.loads(spec.folder.read("report.json") or b"")["complete"] is True
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _sampled(module: Any) -> dict[str, Any]:
    """What the module's generator did, if it had any work."""
    generator = getattr(module, "generator", None)
    if generator is None:
        return {}
    return {"seconds": dict(generator.seconds), "steps": dict(generator.steps), "macs": generator.macs}
