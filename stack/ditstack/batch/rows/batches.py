"""Batches: rows become numbered pictures to make, cut into batches that depend on the file and the batch size alone."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ditstack.batch.rows.check import GoodRow, Row

WINDOW = 64
"""At most this many batches' worth of rows wait for others of their size."""


@dataclass(frozen=True)
class Item:
    """One picture to make. `number` counts the pictures of a run from 0; `copy` those of a row."""

    number: int
    copy: int
    line: int
    row: Row
    seed: int

    @property
    def name(self) -> str:
        """The file's name without its ending: the row's id, and for further pictures of a row their number."""
        return self.row.id if self.copy == 0 else f"{self.row.id}~{self.copy + 1}"

    @property
    def kind(self) -> Hashable:
        """Items of one kind can share a batch."""
        row = self.row
        negative, image = row.negative_prompt is None, row.image is None
        return row.width, row.height, row.steps, row.guidance, row.strength, negative, image


class Batch:
    """Items of one kind. A class of its own, so that Lightning does not look for tensors inside."""

    def __init__(self, items: list[Item]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        return f"Batch({', '.join(item.name for item in self.items)})"


def seed_of(run_seed: int, name: str, copy: int = 0) -> int:
    """A row's own seed, whatever its neighbours, its place in the file and the device that makes it."""
    digest = hashlib.sha256(f"{run_seed}/{name}/{copy}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def items_of(rows: Iterable[GoodRow], run_seed: int) -> Iterator[Item]:
    """Every picture that the rows ask for, numbered in the order of the file."""
    number = 0
    for good in rows:
        row = good.row
        for copy in range(row.num_images):
            seed = seed_of(run_seed, row.id, copy) if row.seed is None else row.seed + copy
            yield Item(number, copy, good.line, row, seed)
            number += 1


def by_kind(items: Iterable[Item]) -> list[list[Item]]:
    """Items that can share a batch, together; in the order in which their kinds appear."""
    groups: dict[Any, list[Item]] = {}
    for item in items:
        groups.setdefault(item.kind, []).append(item)
    return list(groups.values())


def cut(items: Iterable[Item], size: int) -> Iterator[Batch]:
    """Full batches of one kind each, as soon as they are full; what is left at the end.

    Devices and finished pictures play no part, so that a picture has the same neighbours in every run.
    """
    waiting: dict[Any, list[Item]] = {}
    count = 0
    for item in items:
        group = waiting.setdefault(item.kind, [])
        group.append(item)
        count += 1
        if len(group) < size and count > WINDOW * size:
            group = max(waiting.values(), key=len)
        if len(group) >= size or count > WINDOW * size:
            count -= len(group)
            yield Batch(waiting.pop(group[0].kind))
    for group in waiting.values():
        yield Batch(group)


def share(batches: Iterable[Batch], done: bytearray, rank: int, world: int) -> Iterator[Batch]:
    """The batches of one process, in turn among those that hold something unfinished."""
    turn = 0
    for batch in batches:
        if all(item.number < len(done) and done[item.number] for item in batch.items):
            continue
        if turn % world == rank:
            yield batch
        turn += 1
