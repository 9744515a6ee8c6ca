"""Objects: a batch's folder on a bucket: every object is whole or absent, and nothing grows in place.

What needs a disk is left out: a lock holds on this machine alone, and what is there is known by its size.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ditstack.batch.store.folder import is_passing
from ditstack.batch.store.lines import Entry
from ditstack.batch.store.locks import Locks
from ditstack.batch.store.place import faults, filesystem, normal, sentence
from ditstack.errors import BadFile
from ditstack.files import home

LARGEST_PART = 2**20
"""Bytes of lines that are written anew with each batch, before the next object is begun."""


class Objects:
    """A folder on a bucket; see Folder."""

    def __init__(self, place: str | Path) -> None:
        self.name = normal(place)
        self.fs, self.root = filesystem(self.name, "--out")
        digest = hashlib.sha256(self.name.encode()).hexdigest()[:16]
        self.scratch = home() / "batches" / digest
        self.locks = Locks(self.scratch)
        self._sizes: dict[str, dict[str, int]] = {}

    def _path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}" if name else self.root

    def claim(self) -> None:
        if any(name not in ("parts", "batch.json") for name in self.names()) and self.read("batch.json") is None:
            raise BadFile(f"{self.name} holds something already; name another folder with --out")

    @contextmanager
    def _reached(self, verb: str, name: str = "") -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except faults() as error:
            raise BadFile(f"{self.name}/{name} cannot be {verb}: {sentence(error)}") from None

    def read(self, name: str) -> bytes | None:
        try:
            with self._reached("read", name):
                return self.fs.cat_file(self._path(name))
        except FileNotFoundError:
            return None

    def lines(self, name: str) -> Iterator[bytes]:
        try:
            self.fs.invalidate_cache()  # another process may have written it anew since it was listed
            with self._reached("read", name), self.fs.open(self._path(name), "rb") as file:
                yield from file
        except FileNotFoundError:
            return

    def grown(self, name: str, start: int) -> bytes:
        under, _, last = name.rpartition("/")
        if self._listed(under).get(last, 0) <= start:
            return b""
        return (self.read(name) or b"")[start:]

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        with tempfile.TemporaryDirectory(prefix="ditstack-") as folder:
            file = Path(folder) / "object"
            try:
                with file.open("wb") as whole:
                    yield whole
            except OSError as error:
                raise BadFile(f"{tempfile.gettempdir()} cannot be written: {error.strerror}") from None
            self._put(file, name)

    def _put(self, file: Path, name: str) -> None:
        try:
            with self._reached("written", name):
                self.fs.put_file(str(file), self._path(name))
        except FileNotFoundError as error:  # the bucket itself
            raise BadFile(f"{self.name} cannot be written: {sentence(error)}") from None

    def names(self, under: str = "") -> list[str]:
        return sorted(self._listed(under))

    def _listed(self, under: str) -> dict[str, int]:
        """Names with sizes."""
        try:
            with self._reached("read", under):
                self.fs.invalidate_cache()
                found = self.fs.ls(self._path(under), detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        files = [one for one in found if not under or one["type"] == "file"]
        named = {one["name"].rstrip("/").rpartition("/")[2]: int(one.get("size") or 0) for one in files}
        return {name: size for name, size in named.items() if name}

    def remove(self, name: str) -> None:
        try:
            with self._reached("written", name):
                self.fs.rm_file(self._path(name))
        except FileNotFoundError:
            return

    def move(self, old: str, new: str) -> None:
        with self._reached("written", new):
            self.fs.mv(self._path(old), self._path(new))

    def local(self, name: str) -> Path:
        path = self.scratch / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.fs.invalidate_cache()
            with self._reached("read", name):
                self.fs.get_file(self._path(name), str(path))
        except FileNotFoundError:
            path.unlink(missing_ok=True)
        return path

    def appender(self, name: str) -> _Rewritten:
        return _Rewritten(self, name)

    def holds(self, entry: Entry) -> bool:
        under, _, name = entry["file"].rpartition("/")
        if under not in self._sizes:
            self._sizes[under] = self._listed(under)
        size = self._sizes[under].get(name, -1)
        return size >= entry.get("offset", 0) + entry["bytes"] if "member" in entry else size == entry["bytes"]

    def lock(self, rank: int, seconds: float = 0) -> bool:
        self._sizes.clear()
        try:
            return self.locks.hold(rank, seconds)
        except OSError as error:
            raise BadFile(f"{self.locks.path(rank)} cannot be written: {error.strerror}") from None

    def unlock(self, rank: int) -> None:
        self.locks.release(rank)

    def ranks(self) -> list[int]:
        return self.locks.ranks()

    def leave(self) -> None:
        self.locks.release_all()

    def unlock_and_clear(self) -> None:
        for name in self.names("parts"):
            if is_passing(name):
                self.remove(f"parts/{name}")
        self.leave()

    def folds_case(self) -> bool:
        return False


class _Rewritten:
    """Lines in objects that are written anew until they are large; then another is begun."""

    def __init__(self, objects: Objects, name: str) -> None:
        self.objects, self._stem, self._count = objects, name.removesuffix(".jsonl"), 0
        self._data = b""

    def append(self, data: bytes) -> None:
        self._data += data
        with self.objects.writing(f"{self._stem}-{self._count:06d}.jsonl") as file:
            file.write(self._data)
        if len(self._data) >= LARGEST_PART:
            self._data, self._count = b"", self._count + 1

    def close(self) -> None:
        return


def fetch(url: str, file: Any) -> None:
    """Copy an object to an open file.

    Raises:
        BadFile: it is not there, or cannot be read.
    """
    fs, path = filesystem(url, "the prompts file")
    try:
        with fs.open(path, "rb") as found:
            while chunk := found.read(1 << 20):
                file.write(chunk)
    except faults() as error:
        raise BadFile(f"the prompts file {url} cannot be read: {sentence(error)}") from None
