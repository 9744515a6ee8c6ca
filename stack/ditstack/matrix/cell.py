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

from pydantic import BaseModel

from ditstack.errors import DitstackError
from ditstack.files import write_atomically
from ditstack.maths.fidelity import relative_l2
from ditstack.matrix.schema import Cell, FewSteps
from ditstack.matrix.survey import Survey, name_of
from ditstack.measure import metrics
from ditstack.measure.bench import Trial, trial
from ditstack.measure.check import verdicts
from ditstack.measure.pictures import image, strip
from ditstack.recipe import axes, plan
from ditstack.recipe.recipe import Recipe
from ditstack.report import FILED, Estimate, Unit

SURVEY, NOW = "survey.json", "now"
LOSSLESS_SIDE = 256
"""Smaller pictures are kept without loss."""


class Record(BaseModel):
    """What a cell's file holds."""

    model_config = FILED

    cell: Cell
    errors: list[float] = []
    """Relative L2 of each prompt's final latent, against the baseline."""
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

    @cached_property
    def survey(self) -> Survey:
        return Survey.model_validate_json((self.folder / SURVEY).read_text(encoding="utf-8"))

    def reference(self, role: str, recipe: Recipe) -> Trial:
        """What a recipe makes; the last one of each role is kept."""
        if role not in self.kept or self.kept[role][0] != recipe:
            self.kept[role] = (recipe, trial(recipe, self.survey.prompts))
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
            cell.reasons, cell.contradiction = _sentences(error), "declared fine, and refused while it was built"
            return Record(cell=cell)
        return self._measured(cell, recipe, made)

    def _made(self, chosen: dict[str, str], recipe: Recipe) -> Trial:
        """A cell that is the reference of others is made once."""
        if chosen.get("quantize", "") == axes.NONE:
            return self.reference("unquantized", recipe)
        return trial(recipe, self.survey.prompts)

    def _measured(self, cell: Cell, recipe: Recipe, made: Trial) -> Record:
        pictures, baseline = made.pictures, self.reference("baseline", recipe.plain())
        usable, left_out = metrics.metrics_for(recipe.model.judge(), pictures.images.ndim == 5)
        cell.to_baseline = metrics.measure(usable, pictures, baseline.pictures)
        if "quantize" in recipe.adapters:
            whole = self.reference("unquantized", recipe.with_(f"{recipe.name} without quantize", quantize=None))
            cell.to_unquantized = metrics.measure(usable, pictures, whole.pictures)
        cell.own = metrics.measure(usable, pictures, None)
        cell.steps, cell.macs_ratio = pictures.steps, made.macs_ratio
        cell.seconds, cell.speedup = made.seconds, baseline.seconds / made.seconds
        cell.peak_memory, cell.weight_bytes = made.peak_memory, made.weight_bytes
        found = {**cell.to_baseline, "speedup": Estimate(mean=cell.speedup, low=cell.speedup, high=cell.speedup)}
        missed = [str(one) for one in verdicts(self.survey.gate, found, left_out) if not one.ok]
        cell.status, cell.reasons = ("degraded" if missed else "ok"), [*missed, *made.notes]
        cell.pictures = self._keep_pictures(cell.name, made)
        units = [unit for metric in usable for unit in metric.units]
        return Record(
            cell=cell, errors=relative_l2(pictures.latents, baseline.pictures.latents), units=units, left_out=left_out
        )

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
