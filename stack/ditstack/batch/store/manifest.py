"""Manifest: the folder of a batch, what is finished in it, and how a run that was cut off is put in order again.

    batch.json  recipe.yaml  manifest.jsonl  errors.jsonl  report.json  pictures/ or shards/
    parts/      while a run lasts: each process's own lines, its lock, and its totals at the end

Every file but those in parts/ appears whole or not at all; a picture counts once its line and its checksum agree.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ditstack.errors import BadFile, Unfinished
from ditstack.files import opened_atomically, write_atomically

Entry = dict[str, Any]
STRAYS = 60.0
"""Seconds for processes that outlived a killed one to notice, which they do within half of it."""


class Ledger:
    """The books of one output folder. One process prepares and closes them; each writes its own part."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parts = folder / "parts"
        self.manifest = folder / "manifest.jsonl"
        self.held: list[IO[Any]] = []
        """Open files of this process: its locks and its part."""

    def open(self, terms: dict[str, Any], resume: bool = False) -> None:
        """Begin in a new folder, or go on with what the same terms began.

        Raises:
            BadFile: the folder holds something else, or was begun on other terms; nothing is changed.
        """
        known = self.terms()
        if known is None:
            if resume:
                raise BadFile(f"there is nothing to go on with in {self.folder}; leave out --resume")
            if self.folder.is_dir() and any(one.name != "parts" for one in self.folder.iterdir()):
                raise BadFile(f"{self.folder} holds something already; name another folder with --out")
        elif changed := [key for key in terms if known.get(key) != terms[key]]:
            raise BadFile(
                f"{self.folder} was begun with another {' and another '.join(changed)}; "
                "give what it was begun with, or name another folder with --out"
            )
        self.lock(0)
        self._wait_for_strays()
        self._tidy()
        if known is None:
            self.set_terms(terms)

    def terms(self) -> dict[str, Any] | None:
        """What the folder was begun with."""
        try:
            return json.loads((self.folder / "batch.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise BadFile(f"{self.folder / 'batch.json'} cannot be read: {error}") from None

    def folds(self) -> bool:
        """Whether the disk takes names that differ only by case for the same."""
        return (self.folder / "BATCH.JSON").exists()

    def set_terms(self, terms: dict[str, Any]) -> None:
        write_atomically(self.folder / "batch.json", json.dumps(terms, indent=2).encode())

    def lock(self, rank: int) -> None:
        """Hold the lock of one process until this one ends, however it ends.

        Raises:
            Unfinished: another process holds it.
        """
        try:
            self.parts.mkdir(parents=True, exist_ok=True)
            file = (self.parts / f"lock-{rank}").open("w")
        except OSError as error:
            raise BadFile(f"{self.folder} cannot be written: {error.strerror}") from None
        if not _locked(file):
            file.close()
            raise Unfinished(f"another process is writing to {self.folder}; wait until it ends, or stop it")
        self.held.append(file)

    def leave(self) -> None:
        """Let go of the folder."""
        while self.held:
            self.held.pop().close()

    def _wait_for_strays(self) -> None:
        """Processes that outlived the run's first one stop by themselves at the end of their batch."""
        for path in self.parts.glob("lock-*"):
            if path.name == "lock-0":
                continue
            with path.open("w") as file:
                if not _locked(file, STRAYS):
                    raise Unfinished(f"another process is writing to {self.folder}; wait until it ends, or stop it")

    def entries(self) -> Iterator[Entry]:
        """Every line, finished or not: of the manifest first, then of the parts. Torn lines are passed over."""
        for path in [self.manifest, *sorted(self.parts.glob("manifest-*.jsonl"))]:
            if path.is_file():
                yield from _lines(path)

    def done(self) -> bytearray:
        """Which pictures the manifest holds, by number."""
        done = bytearray()
        for entry in _lines(self.manifest) if self.manifest.is_file() else ():
            _mark(done, entry["number"])
        return done

    def _tidy(self) -> None:
        """After a kill: one manifest of whole pictures, no parts, no torn file, no shard that nobody knows."""
        torn, good, strays = self._verify()
        if torn or any(self.parts.glob("manifest-*.jsonl")):
            self._rewrite(good, torn)
        for path in strays:
            path.unlink(missing_ok=True)
        self.sweep()
        for path in self.parts.iterdir():
            if not path.name.startswith(("lock-", "stdin")):
                path.unlink()

    def _verify(self) -> tuple[set[int | str], bytearray, list[Path]]:
        """Numbers of torn pictures and names of torn shards; the whole numbers; shards that no line speaks of.

        A shard with one torn picture is torn as a whole: its pictures are made again, so that none is there twice.
        """
        torn: set[int | str] = set()
        good, known = bytearray(), set()
        for entry in self.entries():
            known.add(entry["file"]) if "member" in entry else None
            if _is_whole(self.folder, entry):
                _mark(good, entry["number"])
            else:
                torn.add(entry["file"] if "member" in entry else entry["number"])
        shards = (self.folder / "shards").glob("*.tar")
        strays = [path for path in shards if (name := f"shards/{path.name}") not in known or name in torn]
        return torn, good, strays

    def _rewrite(self, good: bytearray, torn: set[int | str]) -> None:
        written = bytearray()
        with opened_atomically(self.manifest) as file:
            for entry in self.entries():
                number = entry["number"]
                fresh = number >= len(written) or not written[number]
                if fresh and number < len(good) and good[number] and not {number, entry["file"]} & torn:
                    _mark(written, number)
                    file.write(line_of(entry))

    def close(self, world: int) -> list[Entry]:
        """The end of a run, by its first process: one manifest, one list of errors, no parts.

        Returns:
            The totals that each process left.
        """
        totals = [json.loads((self.parts / f"totals-{rank}.json").read_text()) for rank in range(world)]
        self._join("errors.jsonl", append=False)
        self._join("manifest.jsonl", append=True)
        self.sweep()
        self.leave()
        shutil.rmtree(self.parts, ignore_errors=True)
        return totals

    def _join(self, name: str, append: bool) -> None:
        target, stem = self.folder / name, name.removesuffix(".jsonl")
        parts = [part for part in sorted(self.parts.glob(f"{stem}-*.jsonl")) if part.stat().st_size]
        if not parts and (append or not target.is_file()):
            return
        if not parts:
            target.unlink()
            return
        with opened_atomically(target) as file:
            for part in [*([target] if append and target.is_file() else []), *parts]:
                with part.open("rb") as lines:
                    shutil.copyfileobj(lines, file)

    def sweep(self) -> None:
        """Remove the temporary files of processes that were killed."""
        names = (".batch.json.", ".manifest.jsonl.", ".errors.jsonl.", ".report.json.", ".recipe.yaml.")
        for path in self.folder.iterdir():
            if path.name.startswith(names):
                path.unlink()
        for inner in ("pictures", "shards", "factors", "parts"):
            for path in (self.folder / inner).glob(".*"):
                path.unlink()


class Part:
    """The lines of one process."""

    def __init__(self, ledger: Ledger, rank: int) -> None:
        self.ledger, self.rank = ledger, rank
        if rank:
            ledger.lock(rank)
        self._pictures = self._open("manifest")
        self._errors = self._open("errors")

    def _open(self, stem: str) -> io.FileIO:
        try:
            file = (self.ledger.parts / f"{stem}-{self.rank}.jsonl").open("ab", buffering=0)
        except OSError as error:
            raise BadFile(f"{self.ledger.folder} cannot be written: {error.strerror}") from None
        self.ledger.held.append(file)
        return file

    def add(self, *entries: Entry) -> None:
        """Note finished pictures, whose files are on the disk."""
        self._write(self._pictures, b"".join(line_of(entry) for entry in entries))

    def fail(self, entry: Entry) -> None:
        """Note a row that could not be made."""
        self._write(self._errors, line_of(entry))

    def _write(self, file: io.FileIO, data: bytes) -> None:
        try:
            if file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise BadFile(f"{self.ledger.folder} cannot be written: {error.strerror}") from None

    def close(self, totals: Entry) -> None:
        """Say that this process is through."""
        try:
            for file in (self._pictures, self._errors):
                os.fsync(file.fileno())
        except OSError as error:
            raise BadFile(f"{self.ledger.folder} cannot be written: {error.strerror}") from None
        write_atomically(self.ledger.parts / f"totals-{self.rank}.json", json.dumps(totals).encode())


def line_of(entry: Entry) -> bytes:
    return json.dumps(entry, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace") + b"\n"


def _lines(path: Path) -> Iterator[Entry]:
    with path.open("rb") as file:
        for line in file:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and {"number", "file", "sha256", "bytes"} <= entry.keys():
                yield entry


def _mark(done: bytearray, number: int) -> None:
    if number >= len(done):
        done.extend(bytes(number + 1 - len(done) + len(done) // 8))
    done[number] = 1


def _is_whole(folder: Path, entry: Entry) -> bool:
    try:
        with (folder / entry["file"]).open("rb") as file:
            file.seek(entry.get("offset", 0))
            data = file.read(entry["bytes"] if "member" in entry else -1)
    except OSError:
        return False
    return len(data) == entry["bytes"] and hashlib.sha256(data).hexdigest() == entry["sha256"]


def _locked(file: IO[str], seconds: float = 0) -> bool:
    import fcntl
    import time

    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            if time.monotonic() >= until:
                return False
            time.sleep(0.1)
