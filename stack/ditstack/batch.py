"""Batch: an order, run by Lightning's own Trainer on any number of devices and nodes, and its report."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from ditstack import plan
from ditstack.batches import Item
from ditstack.errors import DitstackError, Incompatible, Unfinished
from ditstack.facts import describe_machine
from ditstack.files import write_atomically
from ditstack.order import Order
from ditstack.recipe import Recipe
from ditstack.report import peak_memory, versions
from ditstack.stopping import Halt, Stopping

if TYPE_CHECKING:
    import lightning as L
    from rich.console import Console

    from ditstack.predict import PromptData
    from ditstack.sample import Pictures

RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK")
"""Where launchers say which process this is."""


class Device(BaseModel):
    """What one process made."""

    rank: int
    pictures: int
    failures: int
    pictures_per_second: float


class BatchReport(BaseModel):
    """One run of a batch; a run that goes on with another reports its own work and the whole's state."""

    recipe: str
    resolved: dict[str, Any]
    versions: dict[str, str]
    machine: str
    weights: str = ""
    seed: int
    complete: bool
    """Every row has its pictures, or its line in errors.jsonl."""
    pictures: int
    """Finished in the folder."""
    written: int
    """By this run."""
    failures: int
    batch_size: int
    pictures_per_second: float
    seconds: dict[str, float]
    """Of all processes together: encode, denoise, decode; write runs beside them, waited is what it held up."""
    steps: dict[str, int]
    macs: int
    peak_memory: int
    devices: list[Device]
    notes: list[str] = []


@dataclass
class Job:
    """An order and where to run it. Everything but `make` and `stopping` goes to Lightning's Trainer as it is."""

    order: Order
    devices: int = 1
    nodes: int = 1
    strategy: str | None = None
    logger: str | None = None
    make: Callable[[Sequence[Item]], Pictures] | None = None
    stopping: Stopping = field(default_factory=Stopping)
    report: BatchReport | None = None

    def trainer(self, callbacks: Sequence[L.Callback] = ()) -> L.Trainer:
        """The Trainer: also what a torchrun or SLURM process builds, each finding its place by itself.

        Raises:
            Incompatible: Lightning is missing, or refuses this machine.
        """
        require_lightning()
        import lightning as L

        place = self.order.recipe.model.place()
        chosen = [place.index] if place.index is not None and self.devices == 1 else self.devices
        try:
            return L.Trainer(
                accelerator="cuda" if place.type == "cuda" else "cpu",
                devices=chosen,
                num_nodes=self.nodes,
                strategy=self.strategy or ("ddp" if self.devices * self.nodes > 1 else "auto"),
                precision=self.order.precision,  # pyright: ignore[reportArgumentType]
                logger=_logger(self.logger, self.order.folder),
                callbacks=list(callbacks),
                default_root_dir=self.order.folder,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                use_distributed_sampler=False,
            )
        except (ValueError, RuntimeError, TypeError, ModuleNotFoundError) as error:
            raise Incompatible("a batch cannot run here:", [str(error)]) from None

    def run(self, console: Console | None = None) -> BatchReport | None:
        """Make what is not made yet.

        Returns:
            The report, in the first process; None in the others.

        Raises:
            DitstackError: before anything is loaded, where that can be known.
        """
        plan.check(self.order.recipe)
        require_lightning()
        from ditstack.bar import Bar
        from ditstack.predict import DiffusionModule, PictureWriter, PromptData

        writer = PictureWriter(self._close)
        data = PromptData(self.order, self.stopping)
        bar = [Bar(data, writer, console)] if console and is_first() else []
        trainer = self.trainer([writer, *bar])
        if is_first():
            self.order.begin()
        self.stopping.listen()
        try:
            trainer.predict(DiffusionModule(self.order.recipe, self.make), data, return_predictions=False)
        except Halt:
            raise Unfinished("stopped at once; what is finished is kept, and the same command goes on") from None
        except DitstackError:
            raise
        except Exception:
            self.stopping.check()  # a library that talked to a lost process fails in its own words
            raise
        finally:
            self.stopping.end_children()
            self.stopping.leave()
        return self.report

    @property
    def exit_code(self) -> int:
        """As a shell reports a process that a signal ended; 0 where none came."""
        number = self.stopping.signal
        return 128 + (signal.SIGTERM if number == signal.SIGTERM else signal.SIGINT) if number else 0

    def _close(self, trainer: L.Trainer, totals: list[dict[str, Any]]) -> None:
        data: PromptData = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        stack = getattr(trainer.lightning_module, "stack", None)
        self.report = summarise(self.order.recipe, totals, data.finished_before, self.order.size)
        if stack is not None:
            self.report.weights, self.report.notes = stack.weights, list(stack.pipe.notes)
        write_atomically(self.order.folder / "report.json", self.report.model_dump_json(indent=2).encode())


def summarise(recipe: Recipe, totals: list[dict[str, Any]], before: int, size: int) -> BatchReport:
    """The totals of all processes as one report."""
    seconds: Counter[str] = Counter()
    steps: Counter[str] = Counter()
    for one in totals:
        seconds.update({**one.get("seconds", {}), "write": one["write"], "waited": one["waited"]})
        steps.update(one.get("steps", {}))
    written, elapsed = sum(one["written"] for one in totals), max(one["elapsed"] for one in totals)
    devices = [
        Device(
            rank=one["rank"], pictures=one["written"], failures=one["failed"],
            pictures_per_second=one["written"] / one["elapsed"],
        )
        for one in totals
    ]  # fmt: skip
    return BatchReport(
        recipe=recipe.name,
        resolved=recipe.resolved(),
        versions=versions(),
        machine=describe_machine(),
        seed=recipe.seed,
        complete=not any(one["stopped"] for one in totals),
        pictures=before + written,
        written=written,
        failures=sum(one["failed"] for one in totals),
        batch_size=size,
        pictures_per_second=written / elapsed,
        seconds={**seconds, "elapsed": elapsed},
        steps=dict(steps),
        macs=sum(one.get("macs", 0) for one in totals),
        peak_memory=peak_memory(),
        devices=devices,
    )


def require_lightning() -> None:
    """Refuse in a sentence where Lightning is not installed.

    Raises:
        Incompatible: with the line that installs it.
    """
    if importlib.util.find_spec("lightning") is None:
        raise Incompatible("a batch cannot run here:", ["it needs lightning: pip install 'ditstack[lightning]'"])


def is_first() -> bool:
    """Whether this is the first process of a run, by what launchers tell."""
    return all(int(os.environ.get(name) or 0) == 0 for name in RANKS)


def _logger(name: str | None, folder: Path) -> Any:
    """One of Lightning's loggers, writing beside the batch's folder's own files."""
    if name is None:
        return False
    from lightning.pytorch import loggers

    kinds = {"csv": loggers.CSVLogger, "tensorboard": loggers.TensorBoardLogger}
    return kinds[name](str(folder / "logs"))
