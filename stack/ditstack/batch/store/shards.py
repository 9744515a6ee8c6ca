"""Shards: pictures packed into WebDataset tar files, each of which appears whole or not at all, numbered from 0."""

from __future__ import annotations

import io
import json
import re
import tarfile
from contextlib import AbstractContextManager, suppress
from typing import IO, Any

from ditstack.batch.store.folder import Folder
from ditstack.batch.store.lines import Entry, line_of
from ditstack.errors import BadFile


class Shards:
    """The numbers that one process gives to its shards: every `world`th, and none that is taken."""

    def __init__(self, folder: Folder, rank: int = 0, world: int = 1) -> None:
        self.folder, self._next, self._step = folder, rank, world
        self._taken = set(folder.names("shards"))

    def begin(self) -> Shard:
        """The next shard, empty."""
        while (name := _name(self._next)) in self._taken:
            self._next += self._step
        self._next += self._step
        return Shard(self.folder, f"shards/{name}")


class Shard:
    """The tar that is being filled. Its pictures count once it is closed; a kill costs what it held."""

    def __init__(self, folder: Folder, name: str) -> None:
        self.folder, self.name = folder, name
        self.entries: list[Entry] = []
        self._whole: AbstractContextManager[IO[bytes]] = folder.writing(name)
        self._file = self._whole.__enter__()
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)

    def add(self, entry: Entry, data: bytes, image: str | None = None) -> None:
        """A picture and its line, under one key.

        Args:
            image: what the line inside calls the picture that this one started from: a shard travels.
        """
        key, suffix = f"{entry['number']:08d}", entry["file"].rpartition(".")[2]
        entry |= {"file": self.name, "member": f"{key}.{suffix}"}
        try:
            told = {name: value for name, value in entry.items() if name != "file"}
            self._put(f"{key}.json", line_of(told if image is None else {**told, "image": image}))
            self._put(entry["member"], data)
            entry["offset"] = self._tar.offset - _padded(len(data))
        except OSError as error:
            raise BadFile(f"{self.folder.name}/{self.name} cannot be written: {error.strerror}") from None
        self.entries.append(entry)

    def _put(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))

    def close(self) -> list[Entry]:
        """Let the shard appear; the lines for the manifest."""
        try:
            self._tar.close()
        except OSError as error:
            self.abandon()
            raise BadFile(f"{self.folder.name}/{self.name} cannot be written: {error.strerror}") from None
        self._whole.__exit__(None, None, None)
        return self.entries

    def abandon(self) -> None:
        """Leave nothing; the disk may be full still."""
        gone = Abandoned()
        with suppress(Abandoned, BadFile):
            self._whole.__exit__(Abandoned, gone, None)


class Abandoned(Exception):
    """The shard that is being filled is given up."""


def stray_shards(folder: Folder, known: set[str], torn: set[str], run: str) -> list[str]:
    """Shards of this run that no line speaks of, and torn ones. Whatever else lies there is not ours."""
    tars = [f"shards/{name}" for name in folder.names("shards") if re.fullmatch(r"\d{8}\.tar", name)]
    return [name for name in tars if name in torn or (name not in known and _is_of(folder, name, run))]


def close_gaps(folder: Folder, shards: set[str]) -> dict[str, str]:
    """Give the last shards the numbers that are free, so that they count without gaps; old names to new."""
    moved: dict[str, str] = {}
    ours = sorted(shards)
    taken = set(folder.names("shards"))
    for number in range(len(ours)):
        free = f"shards/{_name(number)}"
        if free.removeprefix("shards/") not in taken and ours and ours[-1] > free:
            last = ours.pop()
            folder.move(last, free)
            moved[last] = free
    return moved


def _is_of(folder: Folder, name: str, run: str) -> bool:
    """Whether a tar was written by a run on these terms, which the first line inside says."""
    lines: Any = folder.lines(name)
    head = b""
    for line in lines:
        head += line
        if len(head) > 2 * tarfile.BLOCKSIZE:
            break
    lines.close()
    try:
        with tarfile.open(fileobj=io.BytesIO(head)) as tar:
            first = tar.next()
            found = tar.extractfile(first) if first else None
            return found is not None and json.loads(found.read())["run"] == run
    except (tarfile.TarError, ValueError, KeyError, TypeError, OSError):
        return False


def _name(number: int) -> str:
    return f"{number:08d}.tar"


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
