"""Batch: a batch spec, run by Lightning's own Trainer on any number of devices and nodes, and its report."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ditstack.batch.rows.batches import Item
from ditstack.batch.spec import BatchSpec
from ditstack.batch.stopping import Halt, Stopping
from ditstack.errors import DitstackError, Incompatible, Unfinished
from ditstack.recipe import plan

if TYPE_CHECKING:
    import lightning as L
    from rich.console import Console

    from ditstack.assembly.sample import Pictures
    from ditstack.batch.data import PromptData
    from ditstack.batch.pictures import PictureWriter
    from ditstack.batch.progress import Bar, Lines
    from ditstack.batch.report import BatchReport

RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK")
"""Where launchers say which process this is."""


@dataclass
class Job:
    """A batch spec and where to run it. Everything but `make` and `stopping` goes to Lightning's Trainer as it is."""

    spec: BatchSpec
    devices: int = 1
    nodes: int = 1
    strategy: str | None = None
    logger: str | None = None
    log_format: Literal["text", "json"] = "text"
    """Of what is told off a terminal; json also on one."""
    make: Callable[[Sequence[Item]], Pictures] | None = None
    stopping: Stopping = field(default_factory=Stopping)

    def trainer(self, callbacks: Sequence[L.Callback] = ()) -> L.Trainer:
        """The Trainer: also what a torchrun or SLURM process builds, each finding its place by itself.

        Raises:
            Incompatible: Lightning is missing, or refuses this machine.
        """
        require_lightning()
        _require_what_was_started(self.devices, self.nodes)
        import lightning as L
        from lightning.fabric.plugins.environments.lightning import LightningEnvironment

        place = self.spec.recipe.model.place()
        chosen = [place.index] if place.index is not None and self.devices == 1 else self.devices
        try:
            trainer = L.Trainer(
                accelerator="cuda" if place.type == "cuda" else "cpu",
                devices=chosen,
                num_nodes=self.nodes,
                strategy=self.strategy or ("ddp" if self.devices * self.nodes > 1 else "auto"),
                precision=self.spec.precision,  # pyright: ignore[reportArgumentType]
                logger=_logger(self.logger, self.spec.folder.name),
                callbacks=list(callbacks),
                default_root_dir=self.spec.folder.scratch,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                use_distributed_sampler=False,
            )
        except (ValueError, RuntimeError, TypeError, ModuleNotFoundError) as error:
            raise Incompatible("a batch cannot run here:", [str(error)]) from None
        if self.nodes > 1 and type(trainer.strategy.cluster_environment) is LightningEnvironment:  # pyright: ignore[reportAttributeAccessIssue]
            _require_meeting_point(self.nodes)
        return trainer

    def run(self, console: Console | None = None) -> BatchReport | None:
        """Make what is not made yet.

        Returns:
            The report, in the first process; None in the others.

        Raises:
            DitstackError: before anything is loaded, where that can be known.
        """
        plan.check_plan(self.spec.recipe)
        require_lightning()
        from ditstack.batch.predict import DiffusionModule, PictureWriter, PromptData

        writer = PictureWriter()
        data, module = PromptData(self.spec, self.stopping), DiffusionModule(self.spec.recipe, self.make)
        module.certificate = self.spec.certificate
        bar = self._bar(data, writer, console)
        trainer = self.trainer([writer, *([bar] if bar else [])])
        self.stopping.listen()
        try:
            if is_first():
                self.spec.begin()
            if bar:
                module.tell = bar.tell
                for text in self.spec.ledger.repaired:
                    bar.tell(text)
            trainer.predict(module, data, return_predictions=False)
            self.stopping.end_children(30)
        except Halt:
            raise Unfinished("stopped at once; finished pictures are kept, and the same command resumes") from None
        except DitstackError:
            raise
        except Exception:
            self.stopping.check()  # a library that talked to a lost process fails in its own words
            raise
        finally:
            self.stopping.end_children()
            self.stopping.leave()
            self.spec.leave()
        return writer.report

    def _bar(self, data: PromptData, writer: PictureWriter, console: Console | None) -> Bar | Lines | None:
        from ditstack.batch.progress import Bar, Lines

        if console is None or not is_first():
            return None
        as_json = self.log_format == "json"
        return Bar(data, writer, console) if console.is_terminal and not as_json else Lines(data, as_json)

    @property
    def exit_code(self) -> int:
        """As a shell reports a process that a signal ended; 0 where none came."""
        number = self.stopping.signal
        return 128 + (signal.SIGTERM if number == signal.SIGTERM else signal.SIGINT) if number else 0


def require_lightning() -> None:
    """Refuse in a sentence where Lightning is not installed.

    Raises:
        Incompatible: with the line that installs it.
    """
    if importlib.util.find_spec("lightning") is None:
        raise Incompatible("a batch cannot run here:", ["it needs lightning: pip install 'ditstack[lightning]'"])


def _require_what_was_started(devices: int, nodes: int) -> None:
    """A launcher's processes that do not know of each other would all make the same pictures."""
    known = {"torchrun": "WORLD_SIZE" if "TORCHELASTIC_RUN_ID" in os.environ else "", "srun": "SLURM_STEP_NUM_TASKS"}
    for launcher, name in known.items():
        started = int(os.environ.get(name) or 1)
        if started not in (1, devices * nodes):
            found = f"--devices {devices} on --nodes {nodes}"
            raise Incompatible("a batch cannot run here:", [f"{launcher} started {started} processes; found {found}"])


def _require_meeting_point(nodes: int) -> None:
    """Without one, Lightning would wait half an hour for machines that nobody started."""
    if missing := [name for name in ("MASTER_ADDR", "NODE_RANK") if name not in os.environ]:
        raise Incompatible(
            f"a batch cannot run here: {nodes} nodes need a launcher:",
            [f"start it with torchrun or srun, or set {' and '.join(missing)} on each machine"],
        )


def is_first() -> bool:
    """Whether this is the first process of a run, by what launchers tell."""
    return all(int(os.environ.get(name) or 0) == 0 for name in RANKS)


def _logger(name: str | None, folder: str) -> Any:
    """One of Lightning's loggers, writing beside the batch's folder's own files."""
    if name is None:
        return False
    from lightning.pytorch import loggers

    kinds = {"csv": loggers.CSVLogger, "tensorboard": loggers.TensorBoardLogger}
    return kinds[name](f"{folder}/logs")
