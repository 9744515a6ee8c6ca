"""Predict: a batch in Lightning's words: a data module over prompts, a module that samples, a writer of pictures.

    data = PromptData(BatchSpec(recipe, "prompts.csv", "out"))
    trainer = L.Trainer(callbacks=[PictureWriter()])
    trainer.predict(DiffusionModule(recipe), data, return_predictions=False)

Devices, nodes, strategy, precision, loggers and launchers are the Trainer's. The data may be another's too:

    trainer.predict(DiffusionModule("tiny"), DataLoader([{"prompt": "a red circle"}]))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning as L

from ditstack.assembly.sample import Pictures, is_bound_to_steps
from ditstack.batch.data import PromptData
from ditstack.batch.generate import Generator, StackSampler, stand
from ditstack.batch.outcomes import Failed, Made
from ditstack.batch.pictures import PictureWriter
from ditstack.batch.rows.batches import Batch, Item, by_kind
from ditstack.batch.rows.check import BadRow
from ditstack.batch.rows.foreign import items_in, rows_in
from ditstack.calibration.calibrate import wanting
from ditstack.calibration.certificate import Certificate
from ditstack.calibration.run import Tell
from ditstack.recipe.recipe import Recipe
from ditstack.stack import Stack

__all__ = ["DiffusionModule", "PictureWriter", "PromptData"]


class DiffusionModule(L.LightningModule):
    """Samples through the recipe's stack, which is built once in every process, on the device that Lightning gives it.

    Of a DataLoader of your own it takes prompts, dicts with the columns of a prompts file, or lists of these; each
    prediction is a list with one `Made` (`id`, `prompt`, `seed`, `image`) or `Failed` (`id`, `why`) per row.

    Args:
        recipe: a name on the shelf, a path, or a Recipe.
        make: stands in for the stack; takes items and gives a picture each.
    """

    def __init__(self, recipe: Recipe | str | Path, make: Callable[[Sequence[Item]], Pictures] | None = None) -> None:
        super().__init__()
        self.recipe = recipe if isinstance(recipe, Recipe) else Recipe.read(recipe)
        self.prepare_data_per_node = False
        self.generator = Generator(make) if make else None
        self.stack: Stack | None = None
        self.certificate: Certificate | None = None
        """Under which every picture is made."""
        self.tell: Tell = lambda text: None
        """Told in a sentence what long work is being done before the first picture."""
        self._counted = 0
        """Rows of DataLoaders that do not number theirs."""

    @property
    def data(self) -> PromptData | None:
        """The rows of a spec; None where the data is another's."""
        data = getattr(self.trainer, "datamodule", None)
        return data if isinstance(data, PromptData) else None

    def prepare_data(self) -> None:
        """The first process alone: factors and the size of batches are found once and shared by file."""
        data = self.data
        if data is None:
            if wanting(self.recipe) and not self.generator:
                self._load()
            return
        data.done, spec = data.spec.ledger.done(), data.spec
        if not spec.size and spec.batch_size != "auto":
            spec.settle_size(spec.batch_size, data.world)
        if (spec.size and not wanting(self.recipe)) or (item := data.first()) is None:
            return
        generator = self.generator or self._load()
        if not spec.size:
            spec.settle_size(generator.largest(item), data.world)
            generator.seconds.clear()

    def setup(self, stage: str) -> None:
        if self.generator is None and (self.data is None or self.data.first() is not None):
            self._load()

    def _load(self) -> Generator:
        from ditstack.compat import hush_loading

        hush_loading()
        device, first = self.trainer.strategy.root_device, self.trainer.global_rank == 0
        folder = self.data.spec.folder if self.data else None
        self.tell(f"loading {self.recipe.name} on {device}")
        self.stack = stand(self.recipe, device, folder, first, self.tell)
        if self.certificate is not None:
            self.stack.promise(self.certificate)
        if first:
            _ = self.stack.weights  # the fingerprint for the report, while the weights are not in use
        self.generator = Generator(StackSampler(self.stack), quick=not is_bound_to_steps(self.stack.pipe))
        return self.generator

    def on_predict_start(self) -> None:
        self._counted = 0

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> list[Made | Failed]:
        assert self.generator is not None
        if not isinstance(batch, Batch):
            return self._predict_foreign(batch, batch_idx, dataloader_idx)
        if self.data is not None:
            self.data.stopping.check()
            if self.data.stopping.asked:
                return []
        return list(self.generator.generate(batch.items))

    def _predict_foreign(self, batch: Any, batch_idx: int, dataloader_idx: int) -> list[Made | Failed]:
        assert self.generator is not None
        rows = rows_in(batch, self._numbers(batch_idx))
        bad = [Failed(row, row.why) for row in rows if isinstance(row, BadRow)]
        groups = by_kind(items_in(rows, self.recipe.seed))
        made = [one for items in groups for one in self.generator.generate(items)]
        return sorted([*bad, *made], key=lambda one: (one.number, one.copy))

    def _numbers(self, batch_idx: int) -> Iterator[int]:
        """Of the rows of a batch: their places in the dataset where the DataLoader tells, else counted as they come."""
        loaders = self.trainer.predict_dataloaders
        sampler = getattr(loaders, "batch_sampler", None)
        seen = getattr(sampler, "seen_batch_indices", None)
        if seen and batch_idx < len(seen):
            yield from seen[batch_idx]
        while True:
            self._counted += 1
            yield self.trainer.global_rank + self.trainer.world_size * (self._counted - 1)
