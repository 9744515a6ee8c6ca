"""Combine: a whole matrix in a folder: every cell in a process that may die, then the tables and the page."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ditstack.compat import require
from ditstack.errors import BadFile, RecipeError, Unfinished
from ditstack.files import free_folder, read_text, write_atomically
from ditstack.folders import LOCK, own_folder
from ditstack.matrix import markdown, page
from ditstack.matrix.cell import CONTROL, NOW, REFUSED, SURVEY, FewRecord, Record, tasks
from ditstack.matrix.schema import Cell, Matrix
from ditstack.matrix.survey import Survey, name_of
from ditstack.measure.check import check_gate
from ditstack.measure.metrics import estimate
from ditstack.recipe.capabilities import describe_machine
from ditstack.recipe.origin import origins
from ditstack.report import versions

QUADRATURE = (
    "relative L2 of the final latents in quadrature, prompt by prompt: error(A+B) - sqrt(error(A)^2 + error(B)^2), "
    "each against the unaccelerated baseline; above zero, the parts hurt each other beyond their sum"
)
POLL = 0.5
"""Seconds between looks at what the process has finished."""
LAST_LINES = 4
FAILED, TORN = "failed", "torn"


@dataclass
class Job:
    """A matrix in a folder. The same command goes on where it was cut off."""

    survey: Survey
    folder: Path

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def run(self, console: Console) -> Matrix:
        """Measure what is missing, and write matrix.json, matrix.md and the page.

        Raises:
            BadFile: the folder holds another matrix, or nothing here can measure what the gate is on.
            Incompatible: what writes the page is not installed.
        """
        require("jinja2", "a matrix", "report")
        check_gate(self.survey.gate, self.survey.plain({}).model)
        with own_folder(self.folder, "matrix", _begun):
            return self._run(console)

    def _run(self, console: Console) -> Matrix:
        self._settle()
        with _progress(console) as bar:
            every = tasks(self.survey)
            task = bar.add_task("", total=len(every), completed=len(every) - len(self._missing()))
            while self._missing():
                self._go_on(lambda: bar.update(task, completed=len(every) - len(self._missing())))
        matrix = self.matrix()
        write_atomically(self.folder / "matrix.json", (matrix.model_dump_json(indent=1) + "\n").encode())
        write_atomically(self.folder / "matrix.md", markdown.render(matrix).encode())
        page.write(matrix, self.folder)
        return matrix

    def matrix(self) -> Matrix:
        """The records as one table, with every interaction."""
        records = {name_of(one): self._record(name_of(one)) for one in self.survey.combinations()}
        for chosen in self.survey.combinations():
            record = records[name_of(chosen)]
            if record.cell.errors:  # what could not be measured may be no recipe at all
                _interact(records, record, [name_of(part) for part in self.survey.parts(chosen)])
        few = (FewRecord.model_validate_json(self._file(f"{name}-{steps}-steps")) for name, steps in self.survey.few())
        units = {unit.name: unit for record in records.values() for unit in record.units}
        return Matrix(
            model=self.survey.name,
            machine=describe_machine(),
            versions=versions(),
            methods=self._methods(),
            prompts=self.survey.prompts,
            seed=self.survey.base["seed"],
            gate=self.survey.gate.limits(),
            promise=self.survey.gate.promise,
            axes=self.survey.axes,
            units=[unit for name, unit in units.items() if any(_measures(one.cell, name) for one in records.values())],
            left_out=list(dict.fromkeys(text for record in records.values() for text in record.left_out)),
            pictured=self.survey.prompts[: self.survey.pictured],
            interaction_model=QUADRATURE,
            cells=[record.cell for record in records.values()] + self._controls(),
            few_steps=[row for record in few for row in record.rows],
        )

    def _controls(self) -> list[Cell]:
        """Those that cells were set beside, of the least work first."""
        found = [Record.model_validate_json(file.read_text()).cell for file in self.work.glob(f"{CONTROL}-*.json")]
        return sorted(found, key=lambda cell: (cell.macs_ratio or 0.0, cell.name))

    def _methods(self) -> dict[str, str]:
        """Where the methods of every cell that can be read come from."""
        found: dict[str, str] = {}
        for chosen in self.survey.combinations():
            with suppress(RecipeError):
                recipe = self.survey.recipe(chosen)
                names = {stage: f"{stage} {adapter.method}" for stage, adapter in recipe.stages()}
                found |= {names[stage]: origin for stage, origin in origins(recipe).items()}
        return found

    def _settle(self) -> None:
        """Begin, or go on; cells that failed are tried again, and records that are torn are set aside."""
        asked, begun = self.survey.model_dump_json(indent=1), self.work / SURVEY
        if not begun.is_file():
            write_atomically(begun, asked.encode())
        elif read_text(begun) != asked:
            raise BadFile(f"{self.folder} holds another matrix: other axes, prompts or recipe; name another --out")
        for path in self.work.glob("*.json"):
            if path.name != SURVEY and path.is_file() and (wrong := _wrong(path)):
                path.unlink() if wrong == FAILED else os.replace(path, free_folder(path.with_name(f"{path.name}.torn")))

    def _missing(self) -> list[str]:
        return [name for name, _ in tasks(self.survey) if not (self.work / f"{name}.json").is_file()]

    def _go_on(self, look: Callable[[], None]) -> None:
        """Let a process measure what is missing; where it dies, the cell that it was at has failed.

        Raises:
            BadFile: the plain model cannot run here, so that there is nothing to measure against.
        """
        (self.work / NOW).unlink(missing_ok=True)
        (self.work / REFUSED).unlink(missing_ok=True)
        with (self.work / "log.txt").open("w+") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "ditstack.matrix.cell", str(self.work)],
                stdout=log,
                stderr=log,
                env={**os.environ, "DITSTACK_HOME": str(self.work / "home")},
            )
            try:
                while worker.poll() is None:
                    time.sleep(POLL)
                    look()
            finally:
                worker.kill()
                worker.wait()
            log.seek(0)
            last = [line for line in log.read().splitlines() if line.strip()][-LAST_LINES:]
        if (self.work / REFUSED).is_file():
            raise BadFile(read_text(self.work / REFUSED))
        if worker.returncode:
            self._blame(worker.returncode, last)

    def _blame(self, code: int, last: list[str]) -> None:
        at = (self.work / NOW).read_text() if (self.work / NOW).is_file() else ""
        why = f"killed by {signal.Signals(-code).name}" if code < 0 else (last or [f"exit code {code}"])[-1]
        chosen = dict(tasks(self.survey)).get(at)
        if not isinstance(chosen, dict):
            raise Unfinished(f"the matrix stopped{f' at {at}' if at else ''}: {why}; see {self.work / 'log.txt'}")
        cell = Cell(name=at, words=chosen, status="failed", reasons=[why])
        cell.recipe = self.survey.recipe(chosen).to_yaml()
        cell.contradiction = "planned as possible, but it failed"
        write_atomically(self.work / f"{at}.json", Record(cell=cell).model_dump_json(indent=1).encode())

    def _record(self, name: str) -> Record:
        return Record.model_validate_json(self._file(name))

    def _file(self, name: str) -> str:
        return (self.work / f"{name}.json").read_text(encoding="utf-8")


def _wrong(path: Path) -> str:
    """Why a record must be made again; empty where it need not."""
    try:
        text = read_text(path)
        FewRecord.model_validate_json(text) if '"rows"' in text[:20] else Record.model_validate_json(text)
    except (BadFile, ValueError):
        return TORN
    return FAILED if '"status": "failed"' in text else ""


def _begun(folder: Path) -> bool:
    """Whether a folder holds a matrix and nothing else."""
    own = {"work", "pictures", "matrix.json", "matrix.md", page.NAME, LOCK}
    return (folder / "work" / SURVEY).is_file() and own >= {path.name for path in folder.iterdir()}


def _interact(records: dict[str, Record], record: Record, parts: list[str]) -> None:
    """Error beyond that which the parts alone predict; nothing where one of them was not measured."""
    errors = [records[name].cell.errors for name in parts if name in records]
    if not record.cell.errors or len(parts) < 2 or len(errors) < len(parts) or not all(errors):
        return
    predicted = [math.hypot(*each) for each in zip(*errors, strict=True)]
    record.cell.parts = parts
    record.cell.interaction = estimate([a - b for a, b in zip(record.cell.errors, predicted, strict=True)])


def _measures(cell: Cell, name: str) -> bool:
    return name in cell.to_baseline or name in cell.own


def _progress(console: Console) -> Progress:
    columns = (TextColumn("cells"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    left = TimeRemainingColumn(elapsed_when_finished=True)
    return Progress(*columns, TextColumn("left"), left, console=console, speed_estimate_period=600)
