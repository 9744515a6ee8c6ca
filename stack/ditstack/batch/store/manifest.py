"""Manifest: the folder of a batch, what is finished in it, and how a run that was cut off is put right again.

    .ditstack  batch.json  recipe.yaml  manifest.jsonl  errors.jsonl  report.json  batch.html  pictures/ or shards/
    parts/      while a run lasts: its prompts, each process's own lines, its lock, and its totals at the end

Every file but those in parts/ appears whole or not at all; a picture counts once its line and its checksum agree.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from ditstack.batch.store.folder import PART, Folder, is_passing, write
from ditstack.batch.store.lines import OTHER, TORN, Entry, line_of, mark, read
from ditstack.batch.store.shards import close_gaps, stray_shards
from ditstack.errors import BadFile, Unfinished

STRAYS = 60.0
"""Seconds for processes that outlived a killed one to notice, which they do within half of it."""
SETTLED = ("batch_size", "batch_size_asked")
"""What batch.json keeps beside the terms."""


class Ledger:
    """The books of one output folder. One process prepares and closes them; each writes its own part."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.run = ""
        """Whose lines are ours: a digest of the terms."""
        self.repaired: list[str] = []
        """What was found wrong in the books at the start, in sentences."""

    def open(self, terms: dict[str, Any], resume: bool = False) -> None:
        """Begin in a new folder, or go on with what the same terms began.

        Raises:
            BadFile: the folder holds something else, or was begun on other terms; nothing is changed.
        """
        known = self.terms()
        if known is None:
            if resume:
                raise BadFile(f"found no run to resume in {self.folder.name}; leave out --resume")
        elif changed := [key for key in terms if known.get(key) != terms[key]]:
            raise BadFile(
                f"{self.folder.name} was begun with another {' and another '.join(changed)}; "
                "give what it was begun with, or name another folder with --out"
            )
        self.folder.claim()
        self.lock(0)
        self._wait_for_strays()
        if known is None:
            self.set_terms(terms)
        self.join()
        self._tidy()

    def join(self) -> None:
        """In every process: know whose lines are ours."""
        terms = {key: value for key, value in (self.terms() or {}).items() if key not in SETTLED}
        self.run = hashlib.sha256(json.dumps(terms, sort_keys=True).encode()).hexdigest()[:12]

    def terms(self) -> dict[str, Any] | None:
        """What the folder was begun with."""
        data = self.folder.read("batch.json")
        if data is None:
            return None
        try:
            terms = json.loads(data)
        except (ValueError, RecursionError):
            terms = None
        if not isinstance(terms, dict):
            raise BadFile(
                f"{self.folder.name}/batch.json is not what ditstack wrote, so nothing says what the folder holds; "
                "put the file back, or name another folder with --out"
            )
        return terms

    def set_terms(self, terms: dict[str, Any]) -> None:
        write(self.folder, "batch.json", json.dumps(terms, indent=2).encode())

    def lock(self, rank: int, seconds: float = 0) -> None:
        """Hold the lock of one process until this one ends, however it ends.

        Raises:
            Unfinished: another process holds it.
        """
        if not self.folder.lock(rank, seconds):
            raise Unfinished(f"another process is writing to {self.folder.name}; wait until it ends, or stop it")

    def leave(self) -> None:
        """Let go of the folder."""
        self.folder.leave()

    def _wait_for_strays(self) -> None:
        """Processes that outlived the run's first one stop by themselves at the end of their batch."""
        for rank in self.folder.ranks():
            if rank:
                self.lock(rank, STRAYS)
                self.folder.unlock(rank)

    def entries(self) -> Iterator[Entry]:
        """Every whole line of this run: of the manifest first, then of the parts."""
        return (entry for entry in self._read() if isinstance(entry, dict))

    def _read(self) -> Iterator[Entry | str]:
        for name in ["manifest.jsonl", *self._parts("manifest")]:
            yield from read(self.folder.lines(name), self.run)

    def _parts(self, stem: str) -> list[str]:
        found = self.folder.names("parts")
        return [f"parts/{name}" for name in found if name.startswith(f"{stem}-") and is_passing(name)]

    def done(self) -> bytearray:
        """Which pictures the manifest holds, by number."""
        done = bytearray()
        for entry in read(self.folder.lines("manifest.jsonl"), self.run):
            if isinstance(entry, dict):
                mark(done, entry["number"])
        return done

    def _tidy(self) -> None:
        """After a kill: one manifest of whole pictures, no parts, no torn file, no shard of ours that nobody knows."""
        wrong, torn, good, known = self._verify()
        if sum(wrong.values()) or torn or self._parts("manifest"):
            self._rewrite(good, torn)
        for name in stray_shards(self.folder, known, {one for one in torn if isinstance(one, str)}, self.run):
            self.folder.remove(name)
        self.sweep()
        for name in self.folder.names("parts"):
            if is_passing(name) and not name.startswith("lock-"):
                self.folder.remove(f"parts/{name}")
        self.repaired = [f"manifest.jsonl: found {count} lines {kind}; left out" for kind, count in wrong.items()]
        if torn:
            self.repaired.append(f"{len(torn)} pictures or shards were missing or torn; they are made again")

    def _verify(self) -> tuple[Counter[str], set[int | str], bytearray, set[str]]:
        """Lines by what is wrong with them; numbers of torn pictures, names of torn shards; the whole; known shards.

        A shard with one torn picture is torn as a whole: its pictures are made again, so that none is there twice.
        """
        wrong: Counter[str] = Counter()
        torn: set[int | str] = set()
        good, known = bytearray(), set[str]()
        for entry in self._read():
            if isinstance(entry, str):
                wrong[{TORN: "that are torn", OTHER: OTHER}[entry]] += 1
                continue
            if "member" in entry:
                known.add(entry["file"])
            if not self.folder.holds(entry):
                torn.add(entry["file"] if "member" in entry else entry["number"])
            elif mark(good, entry["number"]):
                wrong["that were there already"] += 1
        return wrong, torn, good, known

    def _rewrite(self, good: bytearray, torn: set[int | str], moved: dict[str, str] | None = None) -> None:
        """The manifest anew: each good picture's first line."""
        written = bytearray()
        with self.folder.writing("manifest.jsonl") as file:
            for entry in self.entries():
                number = entry["number"]
                if number < len(good) and good[number] and not {number, entry["file"]} & torn:
                    if not mark(written, number):
                        renamed = (moved or {}).get(entry["file"], entry["file"])
                        file.write(line_of({**entry, "file": renamed}))

    def close(self, world: int) -> list[Entry]:
        """The end of a run, by its first process: one manifest, one list of errors.

        Returns:
            The totals that each process left.
        """
        totals = [json.loads(self.folder.read(f"parts/totals-{rank}.json") or b"{}") for rank in range(world)]
        self._join_errors()
        if self._parts("manifest"):
            every, shards = bytearray(), set[str]()
            for entry in self.entries():
                mark(every, entry["number"])
                shards |= {entry["file"]} if "member" in entry else set()
            self._rewrite(every, set(), close_gaps(self.folder, shards))
        self.sweep()
        return totals

    def _join_errors(self) -> None:
        parts = [name for name in self._parts("errors") if self.folder.read(name)]
        if not parts:
            self.folder.remove("errors.jsonl")
            return
        with self.folder.writing("errors.jsonl") as file:
            for name in parts:
                file.writelines(self.folder.lines(name))

    def sweep(self) -> None:
        """Remove the temporary files of processes that were killed; nobody else's names end like theirs."""
        for inner in ("", "pictures", "shards", "factors", "parts"):
            for name in self.folder.names(inner):
                if name.startswith(".") and name.endswith(PART):
                    self.folder.remove(f"{inner}/{name}" if inner else name)

    def finish(self) -> None:
        """Let go of the folder at the end of a run that is through."""
        self.folder.unlock_and_clear()


class Part:
    """The lines of one process."""

    def __init__(self, ledger: Ledger, rank: int) -> None:
        self.ledger, self.rank = ledger, rank
        if rank:
            ledger.lock(rank)
        self._pictures = ledger.folder.appender(f"parts/manifest-{rank}.jsonl")
        self._errors = ledger.folder.appender(f"parts/errors-{rank}.jsonl")

    def add(self, *entries: Entry) -> None:
        """Note finished pictures, whose files are there."""
        if entries:
            self._pictures.append(b"".join(line_of({**entry, "run": self.ledger.run}) for entry in entries))

    def fail(self, entry: Entry) -> None:
        """Note a row that could not be made."""
        self._errors.append(line_of(entry))

    def close(self, totals: Entry) -> None:
        """Say that this process is through."""
        self._pictures.close()
        self._errors.close()
        write(self.ledger.folder, f"parts/totals-{self.rank}.json", json.dumps(totals).encode())
