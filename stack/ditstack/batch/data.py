"""Data: the rows of a batch spec as Lightning's data module; every process takes its own share of the batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning as L

from ditstack.batch.rows.batches import Batch, Item
from ditstack.batch.rows.check import BadRow, GoodRow
from ditstack.batch.spec import BatchSpec
from ditstack.batch.stopping import Stopping
from ditstack.batch.writer import Writer


class PromptData(L.LightningDataModule):
    """The rows of a spec as batches; every process takes its own, and passes over what is finished."""

    def __init__(self, spec: BatchSpec, stopping: Stopping | None = None) -> None:
        super().__init__()
        self.prepare_data_per_node = False
        self.spec = spec
        self.stopping = stopping or Stopping()
        self.done = bytearray()
        self.finished_before = 0
        self.asked_for = 0
        """Pictures that the rows read so far ask for."""
        self.given = 0
        """Batches given out."""
        self.exhausted = False
        """Whether every row has been read."""
        self.writer: Writer | None = None
        """Set by a PictureWriter; it hears of bad rows."""

    def prepare_data(self) -> None:
        self.stopping.watch(self.trainer)
        self.spec.begin()

    def setup(self, stage: str) -> None:
        self.stopping.watch(self.trainer)
        self.spec.join()
        self.done = self.spec.ledger.done()
        self.finished_before = sum(self.done)
        self.asked_for, self.given, self.exhausted = 0, 0, False

    def teardown(self, stage: str) -> None:
        self.spec.leave()

    @property
    def rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def world(self) -> int:
        return self.trainer.world_size if self.trainer else 1

    def first(self) -> Item | None:
        """Something that this process still has to make."""
        batch = next(self.spec.batches(self.done, self.rank, self.world), None)
        return batch.items[0] if batch else None

    def predict_dataloader(self) -> Batches:
        return Batches(self)

    def transfer_batch_to_device(self, batch: Batch, device: Any, dataloader_idx: int) -> Batch:
        return batch

    def hear(self, row: GoodRow | BadRow) -> None:
        """Of every row, in every process; the first one keeps the books."""
        if isinstance(row, GoodRow):
            self.asked_for += row.row.num_images
        elif self.rank == 0 and self.writer:
            self.writer.refuse(row)


class Batches:
    """What a process iterates over; it ends early when the run is asked to stop."""

    def __init__(self, data: PromptData) -> None:
        self.data = data

    def __iter__(self) -> Iterator[Batch]:
        data = self.data
        for batch in data.spec.batches(data.done, data.rank, data.world, data.hear):
            data.stopping.check()
            if data.stopping.asked:
                return
            data.given += 1
            yield batch
        data.exhausted = True
