"""Patterns: which layers run in full on which steps, as a matrix of steps times layers.

A layer is a child of a block that holds linears: its attention, its MLP. Each follows its own column: its linears
count their increments from the step on which that very layer last ran in full.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ditstack.caching.linears import find_linears
from ditstack.errors import BadFile, BadPipeline
from ditstack.files import expand, read_text
from ditstack.maths.schedule import Word
from ditstack.pipeline.clock import Clock
from ditstack.pipeline.pipe import CALIBRATED, FULL, Pipe
from ditstack.pipeline.policy import StepPolicy
from ditstack.pipeline.records import PassInputs
from ditstack.recipe.documents import Unreadable, parse

FILLED = ".full"
"""How the name of a layer's column among factors ends."""
WANTED = 'wanted lines such as "*": F (CF)... and "*.ff": F (CCF)..., F full and C calibrated; later lines win'

Columns = Mapping[str, Sequence[bool]]
"""By layer, whether it runs in full on each step."""


def find_layers(pipe: Pipe) -> dict[str, list[str]]:
    """The linears of every layer, by transformer, block and child of the block."""
    starts = [f"{name}.{block.name}." for name, blocks in pipe.blocks.items() for block in blocks]
    found: dict[str, list[str]] = {}
    for linear in find_linears(pipe):
        start = next(one for one in starts if linear.startswith(one))
        found.setdefault(start + linear.removeprefix(start).partition(".")[0], []).append(linear)
    return found


@dataclass(frozen=True)
class PatternFile:
    """A pattern as a file spells it: a word of F and C for every layer that a name with * and ? matches."""

    path: Path
    words: tuple[tuple[str, Word], ...]

    @classmethod
    def read(cls, named: str) -> PatternFile:
        """Read one.

        Raises:
            BadFile: it is missing, or is no such pattern.
        """
        path = expand(named)
        try:
            data: Any = parse(read_text(path, what="the pattern"))
            words = {str(name): Word.read(str(text)) for name, text in data.items()}
        except (Unreadable, ValueError, AttributeError) as error:
            raise BadFile(f"the pattern {path} cannot be read: {error}; {WANTED}") from None
        if not words or any(set(word.start + word.again) - {"F", "C"} for word in words.values()):
            raise BadFile(f"the pattern {path} holds other letters than F and C, or none; {WANTED}")
        return cls(path, tuple(words.items()))

    def kinds(self, steps: int) -> tuple[str, ...]:
        """The kind of every step, whatever the layers are called: full where every line says so."""
        letters = [word.letters(steps).ljust(steps, "C") for _, word in self.words]
        return tuple(FULL if {one[step] for one in letters} == {"F"} else CALIBRATED for step in range(steps))

    def columns(self, layers: Sequence[str], steps: int) -> dict[str, tuple[bool, ...]]:
        """For every layer what the last line says that names it.

        Raises:
            BadFile: a layer is named by no line, or a line names none.
            BadPipeline: a line is written for another number of steps.
        """
        for name, word in self.words:
            if not any(fnmatchcase(layer, name) for layer in layers):
                shown = ", ".join(layers[:4])
                raise BadFile(f"the pattern {self.path}: no layer is called {name}; the first of them are {shown}")
            if word.steps not in (None, steps):
                raise BadPipeline(
                    f"the pattern {self.path} names {word.steps} steps for {name}, and this generation takes {steps}; "
                    "write a letter for each, or end it with ... to repeat it to the end"
                )
        found = {}
        for layer in layers:
            own = [word for name, word in self.words if fnmatchcase(layer, name)]
            if not own:
                raise BadFile(f'the pattern {self.path} says nothing of {layer}; begin with a line for "*"')
            found[layer] = tuple(letter == "F" for letter in own[-1].letters(steps))
        return found


class LayerPolicy(StepPolicy):
    """Says of every layer of a pass how it runs, and follows each by itself in every guidance branch.

    A layer that has not run in full since the last step on which its column wanted it runs in full now. A pass is
    full where all layers are.

    Args:
        columns: of a generation of so many steps; layers without one run in full on every step.
    """

    by_layer = True

    def __init__(self, clock: Clock, layers: Mapping[str, Sequence[str]], columns: Callable[[int], Columns]) -> None:
        super().__init__(clock, self._kinds)
        self.columns, self.layers = columns, tuple(layers)
        self.full: frozenset[str] = frozenset()
        """Layers that run in full in the present pass."""
        self._layer = {linear: layer for layer, linears in layers.items() for linear in linears}
        self._since: dict[tuple[Hashable, str], int] = {}
        self._known: dict[int, Columns] = {}

    def begin(self, inputs: PassInputs) -> str:
        columns = self._columns(self.clock.steps)
        self.full = frozenset(layer for layer in self.layers if self._is_due(layer, columns))
        return FULL if len(self.full) == len(self.layers) else CALIBRATED

    def _is_due(self, layer: str, columns: Columns) -> bool:
        since = self._since.get((self.clock.branch, layer))
        return since is None or layer not in columns or any(columns[layer][since + 1 : self.clock.index + 1])

    def end(self, kind: str) -> str:
        self._since |= {(self.clock.branch, layer): self.clock.index for layer in self.full}
        return super().end(kind)

    @property
    def variant(self) -> Hashable:
        return super().variant if len(self.full) == len(self.layers) else self.full

    def layer(self, linear: str) -> str:
        return self._layer[linear]

    def of_layer(self, linear: str) -> str:
        return FULL if self._layer[linear] in self.full else CALIBRATED

    def scheduled(self, linear: str) -> str:
        columns, layer = self._columns(self.clock.steps), self._layer[linear]
        return FULL if layer not in columns or columns[layer][self.clock.index] else CALIBRATED

    def follow_columns(self, columns: Callable[[int], Columns]) -> None:
        """Another pattern, from the next generation on."""
        self.columns, self._known = columns, {}
        self.follow(self._kinds)

    def forget(self) -> None:
        self._since.clear()
        super().forget()

    def _columns(self, steps: int) -> Columns:
        if steps not in self._known:
            self._known[steps] = self.columns(steps)
        return self._known[steps]

    def _kinds(self, steps: int) -> tuple[str, ...]:
        columns = self._columns(steps).values()
        return tuple(FULL if all(column[step] for column in columns) else CALIBRATED for step in range(steps))


@dataclass(frozen=True)
class Pattern:
    """The columns of some layers for one number of steps. Other layers run in full on every step."""

    columns: Mapping[str, tuple[bool, ...]]

    @cached_property
    def steps(self) -> int:
        return len(next(iter(self.columns.values())))

    def tensors(self) -> dict[str, Tensor]:
        """As factors hold it."""
        return {f"{layer}{FILLED}": torch.tensor(column) for layer, column in self.columns.items()}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Pattern | None:
        """What factors hold; None where they hold none."""
        found = {name: one for name, one in tensors.items() if name.endswith(FILLED)}
        return cls({name.removesuffix(FILLED): tuple(one.tolist()) for name, one in found.items()}) if found else None

    def __str__(self) -> str:
        """What tells it from every other one of the same layers."""
        return " ".join(f"{int(''.join('01'[one] for one in column), 2):x}" for column in self.columns.values())


def wrong_pattern(pipe: Pipe, tensors: Mapping[str, Tensor]) -> list[str]:
    """Why `Pattern.of` cannot read these for a pipe: layers that it does not have, and columns that are none."""
    columns = {name: one for name, one in tensors.items() if name.endswith(FILLED)}
    layers, lengths = find_layers(pipe), {len(one) for one in columns.values() if one.ndim == 1}
    wrong = [f"{name}: this pipeline has no such layer" for name in columns if name.removesuffix(FILLED) not in layers]
    wrong += [
        f"{name}: wanted true or false for every step, the first of them true"
        for name, one in columns.items()
        if one.ndim != 1 or one.dtype != torch.bool or not len(one) or not one[0]
    ]
    if len(lengths) > 1:
        wrong.append("the pattern: its columns are of several numbers of steps")
    return wrong if columns else ["the pattern: missing"]
