"""Folder: what a batch asks of the place where it is kept, be it on a disk or a bucket."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Protocol

from ditstack.batch.store.lines import Entry
from ditstack.batch.store.place import is_url

PART = ".ditstack-part"
"""How the names of temporary files end, so that none of the user's is taken for one."""

_PASSING = r"lock-\d+|(manifest|errors)-\d+(-\d+)?\.jsonl|totals-\d+\.json|prompts\.(txt|csv|jsonl|parquet)"


def is_passing(name: str) -> bool:
    """Whether a file in parts/ is one of ours, which are needed only while a run lasts; all others are the user's."""
    return re.fullmatch(_PASSING, name) is not None


class Appender(Protocol):
    """A file that grows by whole lines."""

    def append(self, data: bytes) -> None: ...

    def close(self) -> None: ...


class Folder(Protocol):
    """Names are relative, with "/" between folders. What is written is there whole or not at all.

    Whatever cannot be written or reached is a BadFile with one sentence.
    """

    name: str
    """For people."""
    scratch: Path
    """A folder of this machine, for what libraries want on a disk; the folder itself where it is on one."""

    def claim(self) -> None:
        """Make the place a batch's own.

        Raises:
            BadFile: it holds what no batch wrote. Nothing was changed.
        """
        ...

    def read(self, name: str) -> bytes | None:
        """A file; None where there is none."""
        ...

    def lines(self, name: str) -> Iterator[bytes]:
        """A file line by line; nothing where there is none."""
        ...

    def grown(self, name: str, start: int) -> bytes:
        """What a growing file has held since `start`; nothing where there is none."""
        ...

    def writing(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """A file that appears when the block ends well."""
        ...

    def names(self, under: str = "") -> list[str]:
        """The files directly in a folder, and with "" also the folders; sorted."""
        ...

    def remove(self, name: str) -> None: ...

    def move(self, old: str, new: str) -> None: ...

    def local(self, name: str) -> Path:
        """A file of this folder on a disk of this machine."""
        ...

    def appender(self, name: str) -> Appender: ...

    def holds(self, entry: Entry) -> bool:
        """Whether the picture of a manifest line is there and whole, as far as that is seen without fetching it all."""
        ...

    def lock(self, rank: int, seconds: float = 0) -> bool:
        """Hold the lock of one process until `leave`, or until this one ends; False where another holds it."""
        ...

    def unlock(self, rank: int) -> None: ...

    def ranks(self) -> list[int]:
        """Of processes that hold a lock, or did when they were killed."""
        ...

    def leave(self) -> None:
        """Let go of the locks."""
        ...

    def unlock_and_clear(self) -> None:
        """Remove what was needed while a run lasted, and let go of the locks."""
        ...

    def folds_case(self) -> bool:
        """Whether names that differ only by case are the same; asked once batch.json is there."""
        ...


def folder_of(place: str | Path) -> Folder:
    """The folder that a path or a URL names.

    Raises:
        BadFile: the URL's scheme is unknown, or its package is missing.
    """
    from ditstack.batch.store.disk import Disk
    from ditstack.batch.store.objects import Objects

    return Objects(place) if is_url(place) and not str(place).lower().startswith("file:/") else Disk(place)


def write(folder: Folder, name: str, data: bytes) -> None:
    """A whole file at once."""
    with folder.writing(name) as file:
        file.write(data)
