"""Predict: a batch in Lightning's words: a data module over prompts, a module that samples, a writer of pictures.

    data = PromptData(BatchSpec(recipe, Path("prompts.csv"), Path("out")))
    trainer = L.Trainer(callbacks=[PictureWriter()])
    trainer.predict(DiffusionModule(recipe), data, return_predictions=False)

Devices, nodes, strategy, precision, loggers and launchers are the Trainer's. The one room that imports lightning.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter

from ditstack.assembly.sample import Pictures
from ditstack.batch.batches import Batch, Item
from ditstack.batch.generate import Easel, Failed, Generator, Made, stand
from ditstack.batch.report import BatchReport, summarise
from ditstack.batch.rows import BadRow, GoodRow
from ditstack.batch.spec import BatchSpec
from ditstack.batch.stopping import Stopping
from ditstack.batch.writer import Writer
from ditstack.calibration.calibrate import wanting
from ditstack.files import write_atomically
from ditstack.recipe.recipe import Recipe
from ditstack.stack import Stack


class PromptData(L.LightningDataModule):
    """The rows of an order as batches; every process takes its own, and passes over what is finished."""

    def __init__(self, order: BatchSpec, stopping: Stopping | None = None) -> None:
        super().__init__()
        self.prepare_data_per_node = False
        self.order = order
        self.stopping = stopping or Stopping()
        self.done = bytearray()
        self.finished_before = 0
        self.asked_for = 0
        """Pictures that the rows read so far ask for."""
        self.press: Writer | None = None

    def prepare_data(self) -> None:
        self.stopping.watch(self.trainer)
        self.order.begin()

    def setup(self, stage: str) -> None:
        self.stopping.watch(self.trainer)
        self.order.join()
        self.done = self.order.ledger.done()
        self.finished_before = sum(self.done)
        self.press = Writer(self.order, self.rank, self.done)

    @property
    def rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def world(self) -> int:
        return self.trainer.world_size if self.trainer else 1

    def first(self) -> Item | None:
        """Something that this process still has to make."""
        batch = next(self.order.batches(self.done, self.rank, self.world), None)
        return batch.items[0] if batch else None

    def predict_dataloader(self) -> Batches:
        return Batches(self)

    def transfer_batch_to_device(self, batch: Batch, device: Any, dataloader_idx: int) -> Batch:
        return batch

    def hear(self, row: GoodRow | BadRow) -> None:
        """Of every row, in every process; the first one keeps the books."""
        if isinstance(row, GoodRow):
            self.asked_for += row.row.num_images
        elif self.rank == 0 and self.press:
            self.press.refuse(row)


class Batches:
    """What a process iterates over; it ends early when the run is asked to stop."""

    def __init__(self, data: PromptData) -> None:
        self.data = data

    def __iter__(self) -> Iterator[Batch]:
        data = self.data
        for batch in data.order.batches(data.done, data.rank, data.world, data.hear):
            data.stopping.check()
            if data.stopping.asked:
                return
            yield batch


class DiffusionModule(L.LightningModule):
    """Samples through the recipe's stack, which is built once in every process, on the device that Lightning gives it.

    Args:
        make: stands in for the stack; takes items and gives a picture each.
    """

    def __init__(self, recipe: Recipe, make: Callable[[Sequence[Item]], Pictures] | None = None) -> None:
        super().__init__()
        self.recipe = recipe
        self.prepare_data_per_node = False
        self.painter = Generator(make) if make else None
        self.stack: Stack | None = None

    @property
    def data(self) -> PromptData:
        return self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]

    def prepare_data(self) -> None:
        """The first process alone: factors and the size of batches are found once and shared by file."""
        data = self.data
        data.done = data.order.ledger.done()
        if (data.order.size and not wanting(self.recipe)) or (item := data.first()) is None:
            return
        painter = self.painter or self._load()
        if not data.order.size:
            data.order.set_size(painter.largest(item))
            painter.seconds.clear()

    def setup(self, stage: str) -> None:
        if self.painter is None and self.data.first() is not None:
            self._load()

    def _load(self) -> Generator:
        from ditstack.compat import hush_loading

        hush_loading()
        device = self.trainer.strategy.root_device
        self.stack = stand(self.recipe, device, self.data.order.folder, self.trainer.global_rank == 0)
        self.painter = Generator(Easel(self.stack))
        return self.painter

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Made | Failed]:
        self.data.stopping.check()
        if self.data.stopping.asked:
            return []
        assert self.painter is not None
        return list(self.painter.paint(batch.items))


class PictureWriter(BasePredictionWriter):
    """Writes every picture and its line as it comes, and closes the books at the end."""

    def __init__(self) -> None:
        super().__init__("batch")
        self.report: BatchReport | None = None
        """In the first process, once all have ended."""
        self.tick: list[Callable[[], None]] = []
        """Called while the first process waits for others."""
        self.began = 0.0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        # our batches carry their own numbers, so the indices that Lightning looks for are not missed
        warnings.filterwarnings("ignore", "Couldn't infer the batch indices", UserWarning)

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        stopping = _data(trainer).stopping
        stopping.listen()  # over Lightning's own handlers, which talk to other processes from inside a signal
        stopping.sampling = True
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
        data = _data(trainer)
        assert data.press is not None
        data.press.take(prediction)
        for logger in trainer.loggers:
            seconds = time.perf_counter() - self.began
            logger.log_metrics({"pictures_per_second": data.press.written / seconds}, batch_idx)

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data, painter = _data(trainer), getattr(pl_module, "painter", None)
        assert data.press is not None
        sampled = (
            {"seconds": dict(painter.seconds), "steps": dict(painter.steps), "macs": painter.macs} if painter else {}
        )
        session = {"elapsed": time.perf_counter() - self.began, "stopped": bool(data.stopping.signal)}
        data.press.close({"rank": trainer.global_rank, **sampled, **session})
        if trainer.global_rank == 0:
            self._wait(data)
            self._report(data, getattr(pl_module, "stack", None))
        data.order.ledger.leave()
        data.stopping.sampling = False
        data.stopping.leave()

    def _report(self, data: PromptData, stack: Stack | None) -> None:
        order = data.order
        totals = order.ledger.close(data.world)
        self.report = summarise(order.recipe, totals, data.finished_before, order.size)
        if stack is not None:
            self.report.weights, self.report.notes = stack.weights, list(stack.pipe.notes)
        file = order.folder / "report.json"
        # a call that found nothing left to do does not hide how fast the pictures were made
        if self.report.written or not file.is_file() or not json.loads(file.read_bytes())["complete"]:
            write_atomically(file, self.report.model_dump_json(indent=2).encode())

    def _wait(self, data: PromptData) -> None:
        """Until all processes have left their totals; by file, since a device may be hours behind another."""
        parts = data.order.ledger.parts
        while not all((parts / f"totals-{rank}.json").is_file() for rank in range(data.world)):
            data.stopping.check()
            self._tell()
            time.sleep(0.1)
        self._tell()

    def _tell(self) -> None:
        for tell in self.tick:
            tell()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        data = _data(trainer)
        data.stopping.sampling = False
        data.stopping.leave()
        if data.press:
            data.press.abandon()
        data.order.ledger.leave()


def _data(trainer: L.Trainer) -> PromptData:
    return trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
