"""Cell: one combination of a matrix, measured beside its references, in a process that may die of it.

    python -m ditstack.matrix.cell FOLDER

goes through the survey in FOLDER, writes a record for every cell that has none, and says in `now` which one it is at.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from ditstack.assembly.comparison import single
from ditstack.errors import DitstackError
from ditstack.files import write_atomically
from ditstack.maths.fidelity import psnr, relative_l2
from ditstack.matrix.schema import Cell, FewSteps
from ditstack.matrix.survey import Survey, name_of
from ditstack.measure import metrics
from ditstack.measure.bench import Trial, trial
from ditstack.measure.check import verdicts
from ditstack.measure.controls import Controls, evaluations_of, to_choose_on
from ditstack.measure.idle import idle
from ditstack.paper import image, strip
from ditstack.recipe import axes, plan
from ditstack.recipe.recipe import Recipe
from ditstack.report import FILED, Unit

SURVEY, NOW, CONTROL = "survey.json", "now", "control"
REFUSED = "refused"
"""The file in which it is said why the plain model itself cannot run; then there is nothing to measure."""
LOSSLESS_SIDE = 256
"""Smaller pictures are kept without loss."""


class Record(BaseModel):
    """What a cell's file holds."""

    model_config = FILED

    cell: Cell
    units: list[Unit] = []
    left_out: list[str] = []


class FewRecord(BaseModel):
    """What the file of a short schedule holds."""

    model_config = FILED

    rows: list[FewSteps]


@dataclass
class Bench:
    """The survey of a folder, with the references that were used last."""

    folder: Path
    kept: dict[str, tuple[Recipe, Trial]] = field(default_factory=dict)
    _controls: Controls | None = None

    @cached_property
    def survey(self) -> Survey:
        return Survey.model_validate_json((self.folder / SURVEY).read_text(encoding="utf-8"))

    def reference(self, role: str, recipe: Recipe, against: Recipe | None = None) -> Trial:
        """What a recipe makes, whatever it is called; the last one of each role is kept."""
        if role not in self.kept or self.kept[role][0].resolved() != recipe.resolved():
            self.kept[role] = (recipe, trial(recipe, self.survey.prompts, against=against))
        return self.kept[role][1]

    def record(self, chosen: dict[str, str]) -> Record:
        """Measure a combination, or say why it cannot be."""
        cell = Cell(name=name_of(chosen), words=chosen, status="refused")
        try:
            recipe = self.survey.recipe(chosen)
        except DitstackError as error:
            cell.reasons = _sentences(error)
            return Record(cell=cell)
        cell.recipe = recipe.to_yaml()
        steps = plan.plan(recipe)
        cell.reasons = [reason for step in steps for reason in step.reasons]
        if cell.reasons:
            cell.contradiction = self._works_though_refused(recipe) if plan.is_by_facts_alone(steps) else ""
            return Record(cell=cell)
        try:
            made = self._made(chosen, recipe)
        except DitstackError as error:
            cell.reasons, cell.contradiction = _sentences(error), "planned as possible, but refused while it was built"
            return Record(cell=cell)
        return self._measured(cell, recipe, made)

    def _made(self, chosen: dict[str, str], recipe: Recipe) -> Trial:
        """A cell that is the reference of others is made once."""
        if chosen.get("quantize", "") == axes.NONE:
            return self.reference("unquantized", recipe, against=self.whole(chosen))
        return trial(recipe, self.survey.prompts, against=self.whole(chosen))

    def whole(self, chosen: dict[str, str]) -> Recipe:
        """The plain model with all its steps and no LoRA; where the base brings the LoRA, the stack's own baseline."""
        own = self.survey.plain(chosen)
        return self.survey.plain({}) if "distill" in own.adapters and "distill" in self.survey.axes else own

    def _measured(self, cell: Cell, recipe: Recipe, made: Trial) -> Record:
        baseline = self.reference("baseline", self.survey.plain(cell.words))
        record = self._figures(cell, recipe, made, baseline)
        if "quantize" in recipe.adapters:
            # by the name of the cell that it is, whose factors serve: what is fitted is fitted once
            unrounded = name_of({**cell.words, "quantize": axes.NONE})
            whole = self.reference("unquantized", recipe.with_(unrounded, quantize=None))
            usable, _ = self._metrics(recipe, made)
            cell.to_unquantized = metrics.measure(usable, made.pictures, whole.pictures)
        asleep, beaten = idle(recipe, made, baseline), self._beside(cell)
        pace = made.pace or single(cell.speedup or 1.0)
        found = {**cell.to_baseline, "speedup": pace}
        missed = [str(one) for one in verdicts(self.survey.gate, found, record.left_out) if not one.ok]
        cell.status = "idle" if asleep else "degraded" if missed or beaten else "ok"
        cell.reasons = [*asleep, *missed, *beaten, *made.notes]
        return record

    def _figures(self, cell: Cell, recipe: Recipe, made: Trial, baseline: Trial) -> Record:
        """Fill in what is measured of any cell, a control's too."""
        pictures = made.pictures
        usable, left_out = self._metrics(recipe, made)
        cell.to_baseline = metrics.measure(usable, pictures, baseline.pictures)
        cell.own = metrics.measure(usable, pictures, None)
        cell.psnr_each = psnr(pictures.images, baseline.pictures.images)
        cell.errors = relative_l2(pictures.latents, baseline.pictures.latents)
        cell.steps, cell.macs_ratio = pictures.steps, pictures.macs / max(1, baseline.pictures.macs)
        plain = self._beside_whole(cell, recipe, made, baseline)
        pace, lap = made.pace or single(plain.seconds / made.seconds), made.lap or single(made.seconds)
        cell.speedup, cell.speedup_range = pace.mean, (pace.low, pace.high)
        cell.seconds, cell.seconds_range = lap.mean, (lap.low, lap.high)
        cell.weight_bytes = made.weight_bytes
        if torch.cuda.is_available():
            cell.peak_memory = made.peak_memory
        cell.pictures = self._keep_pictures(cell.name, made)
        return Record(cell=cell, units=[unit for metric in usable for unit in metric.units], left_out=left_out)

    def _beside_whole(self, cell: Cell, recipe: Recipe, made: Trial, baseline: Trial) -> Trial:
        """Set a cell beside the plain model with all its steps; returns what that made."""
        whole = self.whole(cell.words)
        if whole == self.survey.plain(cell.words):
            self.kept["plain"] = whole, baseline  # under a LoRA too, its pictures are what cells are set beside
        plain = self.reference("plain", whole)
        cell.plain_macs_ratio = made.pictures.macs / max(1, plain.pictures.macs)
        if plain is not baseline and plain.pictures.images.shape == made.pictures.images.shape:
            usable, _ = self._metrics(recipe, made)
            cell.to_plain = metrics.measure(usable, made.pictures, plain.pictures)
        return plain

    def _metrics(self, recipe: Recipe, made: Trial) -> tuple[list[metrics.Metric], list[str]]:
        return metrics.metrics_for(recipe.model.judge(), made.pictures.images.ndim == 5)

    def _beside(self, cell: Cell) -> list[str]:
        """Set a cell beside the control of its multiply-accumulates; a sentence where it is not surely above it."""
        steps = self.survey.plain(cell.words).sampler.steps
        evaluations = evaluations_of(cell.macs_ratio or 1.0, steps)
        if evaluations >= steps or self.survey.is_sampler_alone(cell.words):
            return []
        control = self.control(cell.words, evaluations).cell
        gains = [0.0 if a == b else a - b for a, b in zip(cell.psnr_each, control.psnr_each, strict=True)]
        cell.control, cell.above_control = control.name, metrics.estimate(gains)
        found = cell.above_control
        if found.low > 0:
            return []
        return [f"not surely above {control.name}: {found.mean:+.2f} dB ({found.low:+.2f} to {found.high:+.2f})"]

    def control(self, words: dict[str, str], evaluations: int) -> Record:
        """The best control of a cell at a budget, measured once as a cell is, in a file of its own."""
        distill = self.survey.lora(words)
        file = self.folder / f"{CONTROL}-{distill}-{evaluations}.json"
        if file.is_file():
            return Record.model_validate_json(file.read_text(encoding="utf-8"))
        plain = self.survey.plain(words)
        if self._controls is None or self._controls.recipe != plain:
            self._controls = Controls(plain, to_choose_on(plain, self.survey.prompts))
        best = self._controls.best(evaluations)
        prefix = "" if distill == axes.NONE else f"{distill}, "
        kept = {stage: distill if stage == "distill" else axes.NONE for stage in self.survey.axes}
        cell = Cell(name=f"{prefix}{evaluations} evaluations, {best.title}", words=kept, status="control")
        cell.recipe = best.recipe.to_yaml()
        made = trial(best.recipe, self.survey.prompts, against=self.whole(words))
        record = self._figures(cell, best.recipe, made, self.reference("baseline", plain))
        write_atomically(file, record.model_dump_json(indent=1).encode())
        return record

    def _works_though_refused(self, recipe: Recipe) -> str:
        """What a refusal by facts alone is worth: empty if the stack really cannot stand."""
        with plan.forced():
            try:
                trial(recipe, self.survey.prompts[:2])
            except (DitstackError, RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError):
                return ""
        return "refused, but it works when it is forced"

    def _keep_pictures(self, name: str, made: Trial) -> list[str]:
        """The first pictures as files below the matrix's folder."""
        folder = self.folder.parent / "pictures" / name
        folder.mkdir(parents=True, exist_ok=True)
        kept = []
        for place, one in enumerate(made.pictures.images[: self.survey.pictured]):
            drawn = strip(one) if one.ndim == 4 else image(one)
            drawn.save(folder / f"{place}.webp", lossless=max(drawn.size) <= LOSSLESS_SIDE, quality=90)
            kept.append(f"pictures/{name}/{place}.webp")
        return kept


def main(folder: Path) -> None:
    """Write every record that is not there yet; end early if whoever started this is gone."""
    from ditstack.compat import hush, hush_loading
    from ditstack.matrix.few_steps import rows

    hush()
    hush_loading()
    bench, parent = Bench(folder), os.getppid()
    if not any((folder / f"{name}.json").is_file() for name, _ in tasks(bench.survey)):
        try:
            bench.reference("baseline", bench.survey.plain({}))
        except DitstackError as error:
            (folder / REFUSED).write_text(str(error), encoding="utf-8")
            return
    for name, chosen in tasks(bench.survey):
        path = folder / f"{name}.json"
        if path.is_file():
            continue
        if os.getppid() != parent:
            return
        (folder / NOW).write_text(name)
        record: BaseModel = bench.record(chosen) if isinstance(chosen, dict) else FewRecord(rows=rows(bench, *chosen))
        write_atomically(path, record.model_dump_json(indent=1).encode())


def tasks(survey: Survey) -> list[tuple[str, dict[str, str] | tuple[str, int]]]:
    """The name of every record: the cells', then those of the short schedules."""
    cells: list[tuple[str, Any]] = [(name_of(chosen), chosen) for chosen in survey.combinations()]
    return cells + [(f"{distill}-{steps}-steps", (distill, steps)) for distill, steps in survey.few()]


def _sentences(error: DitstackError) -> list[str]:
    return list(getattr(error, "reasons", ())) or [str(error)]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
