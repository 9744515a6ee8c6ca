"""Disk: a batch's folder on a disk: temporary names and renames, files that grow, locks that end with their process."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn

from ditstack import folders
from ditstack.batch.store.folder import PART, is_passing
from ditstack.batch.store.lines import Entry
from ditstack.batch.store.locks import Locks
from ditstack.errors import BadFile
from ditstack.files import expand
from ditstack.marks import Mark


class Disk:
    """A folder on a disk; see Folder.

    Raises:
        BadFile: it is the working folder, the home folder, a root, or above one of these; or no path at all.
    """

    def __init__(self, place: str | Path) -> None:
        path = expand(re.sub(r"^file:/+", "/", str(place)))
        self.name, self.root = str(path), folders.place(path)
        self.scratch = self.root
        self.locks = Locks(self.root / "parts")
        self._growing: list[_Growing] = []

    def claim(self) -> None:
        if folders.require_own(self.root, "batch", _begun) is None:
            try:
                self.root.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                self._refuse("", error)
            Mark("batch").write(self.root)

    def read(self, name: str) -> bytes | None:
        try:
            with self._plain(name) as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise BadFile(f"{self.root / name} cannot be read: {error.strerror}") from None

    def lines(self, name: str) -> Iterator[bytes]:
        try:
            with self._plain(name) as file:
                yield from file
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise BadFile(f"{self.root / name} cannot be read: {error.strerror}") from None

    def grown(self, name: str, start: int) -> bytes:
        try:
            with self._plain(name) as file:
                file.seek(start)
                return file.read()
        except OSError:
            return b""

    def _plain(self, name: str) -> IO[bytes]:
        """Open a plain file; a pipe in its place would never answer."""
        handle = os.open(self.root / name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise FileNotFoundError
        return os.fdopen(handle, "rb")

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        path = self.root / name
        temporary = path.with_name(f".{path.name}.{os.getpid()}{PART}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            self._refuse(name, error)
        finally:
            _forget(temporary)

    def names(self, under: str = "") -> list[str]:
        try:
            with os.scandir(self.root / under) as found:
                return sorted(one.name for one in found if not under or one.is_file(follow_symlinks=False))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise BadFile(f"{self.root / under} cannot be read: {error.strerror}") from None

    def remove(self, name: str) -> None:
        try:
            (self.root / name).unlink(missing_ok=True)
        except OSError as error:
            self._refuse(name, error)

    def move(self, old: str, new: str) -> None:
        try:
            os.replace(self.root / old, self.root / new)
        except OSError as error:
            self._refuse(new, error)

    def local(self, name: str) -> Path:
        return self.root / name

    def appender(self, name: str) -> _Growing:
        self._growing.append(_Growing(self, name))
        return self._growing[-1]

    def holds(self, entry: Entry) -> bool:
        try:
            with self._plain(entry["file"]) as file:
                file.seek(entry.get("offset", 0))
                data = file.read(entry["bytes"] if "member" in entry else -1)
        except OSError:
            return False
        return len(data) == entry["bytes"] and hashlib.sha256(data).hexdigest() == entry["sha256"]

    def lock(self, rank: int, seconds: float = 0) -> bool:
        try:
            return self.locks.hold(rank, seconds)
        except OSError as error:
            self._refuse("", error)

    def unlock(self, rank: int) -> None:
        self.locks.release(rank)

    def ranks(self) -> list[int]:
        return self.locks.ranks()

    def leave(self) -> None:
        while self._growing:
            self._growing.pop().abandon()
        self.locks.release_all()

    def unlock_and_clear(self) -> None:
        for name in self.names("parts"):
            if is_passing(name):
                self.remove(f"parts/{name}")  # locks too, while they are held: whoever waits for one opens it anew
        self.leave()
        try:
            (self.root / "parts").rmdir()
        except OSError:
            return  # something of the user's is in there: it stays

    def folds_case(self) -> bool:
        return (self.root / "BATCH.JSON").exists()

    def _refuse(self, name: str, error: OSError) -> NoReturn:
        raise BadFile(f"{self.root / name} cannot be written: {error.strerror}") from None


class _Growing:
    """A file that grows by whole lines; one that is torn is cut off when the run goes on."""

    def __init__(self, disk: Disk, name: str) -> None:
        self.disk, self.name = disk, name
        try:
            self._file = (disk.root / name).open("ab", buffering=0)
        except OSError as error:
            disk._refuse("", error)

    def append(self, data: bytes) -> None:
        try:
            if self._file.write(data) != len(data):
                raise OSError(28, os.strerror(28))  # ENOSPC, which a write in part does not raise by itself
        except OSError as error:
            self.disk._refuse("", error)

    def abandon(self) -> None:
        """Leave what is there; nothing is held back that could fail."""
        self._file.close()

    def close(self) -> None:
        try:
            if not self._file.closed:
                os.fsync(self._file.fileno())
                self._file.close()
        except OSError as error:
            self.disk._refuse("", error)


def _begun(root: Path) -> bool:
    """Whether a folder without a mark was begun before batches left one."""
    return (root / "batch.json").is_file()


def _forget(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # the disk that refused the file may refuse this too; the next run sweeps
