"""Run: the main job. Prompts become pictures in a folder, with everything needed to make them again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ditstack import paper
from ditstack.assembly.comparison import compare
from ditstack.assembly.sample import Pictures
from ditstack.calibration.calibrate import check_ready
from ditstack.calibration.certificate import Certificate, certified
from ditstack.compat import hush_loading, require
from ditstack.folders import folder_atomically, rewrite_own
from ditstack.measure.bench import race, room_for_another, timed_sample
from ditstack.measure.check import unchecked
from ditstack.measure.told import Told
from ditstack.recipe.recipe import Recipe
from ditstack.report import Report
from ditstack.stack import Stack, load


@dataclass
class Job:
    """One run of a recipe into a folder, which appears whole or not at all."""

    recipe: Recipe
    prompts: list[str]
    folder: Path
    negative_prompt: str | None = None
    compare: bool = False
    overwrite: bool = False
    promise: bool = False
    """Whether the certified setting runs, under its certificate."""

    def run(self, console: Console) -> Report:
        """Make the pictures.

        Raises:
            DitstackError: before any weight is loaded, where that can be known.
        """
        plainly = self.recipe.plain()  # a certificate may take another sampler, the baseline does not
        self.recipe, certificate = certified(self.recipe, self.promise)
        check_ready(self.recipe)
        with folder_atomically(self.folder, self.overwrite) as folder:
            baseline = self._sample(plainly, "plain baseline", console) if self.compare else None
            runner, plain = baseline or (None, None)
            del baseline
            runner = runner if room_for_another() else None
            stack, made = self._sample(self.recipe, self.recipe.name, console, certificate)
            report = stack.report(made)
            report.notes += [note] if (note := unchecked(self.recipe)) else []
            self._write(folder, report, made, plain)
        if plain is not None:  # only now, so that no figure that fails takes the pictures with it
            pace = race(stack, runner, self.prompts, self.negative_prompt).speedup if runner else None
            report.compare = compare(made, plain, pace)
            rewrite_own(self.folder, "report.json", report.model_dump_json(indent=2).encode())
        return report

    def _sample(
        self, recipe: Recipe, title: str, console: Console, certificate: Certificate | None = None
    ) -> tuple[Stack, Pictures]:
        hush_loading()
        with Told(console).shown() as told:
            told.tell(f"loading {title}")
            stack = load(recipe, told.tell, bar=told.count)
            if certificate is not None:
                stack.promise(certificate)
            if stack.pipe.fps:
                require("imageio_ffmpeg", "a run that makes videos", "video")
            with _ticking(stack, lambda done, steps: told.count(title, done, steps)):
                made = timed_sample(stack, self.prompts, self.negative_prompt)
        return stack, made

    def _write(self, folder: Path, report: Report, made: Pictures, plain: Pictures | None) -> None:
        paper.save_all(made.images, self.prompts, folder, made.fps)
        if plain is not None:
            (folder / "plain").mkdir()
            paper.save_all(plain.images, self.prompts, folder / "plain", plain.fps)
            paper.grid(plain.images, made.images, self.prompts).save(folder / "grid.png")
        (folder / "recipe.yaml").write_text(self.recipe.to_yaml(), encoding="utf-8")
        (folder / "report.json").write_text(report.model_dump_json(indent=2), encoding="utf-8")


@contextmanager
def _ticking(stack: Stack, tick: Callable[[int, int], None]) -> Iterator[None]:
    stack.pipe.clock.on_tick.append(tick)
    yield
    stack.pipe.clock.on_tick.remove(tick)
