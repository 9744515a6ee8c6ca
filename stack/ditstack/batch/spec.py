"""Batch spec: what a batch is to make, from what, and where; begun in a new folder or gone on with."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from ditstack.batch.encode import Format, check_format
from ditstack.batch.rows.batches import Batch, cut, items_of, share
from ditstack.batch.rows.check import BadRow, GoodRow, read_rows
from ditstack.batch.rows.sources import Source, spool
from ditstack.batch.store.folder import folder_of, is_passing, write
from ditstack.batch.store.manifest import Ledger
from ditstack.batch.store.objects import fetch
from ditstack.batch.store.place import is_url, normal
from ditstack.calibration.certificate import certified
from ditstack.errors import BadFile
from ditstack.files import opened
from ditstack.recipe.recipe import Recipe

CERTIFICATE = "certificate.json"
"""In the folder of a batch that was made under one."""


class BatchSpec:
    """One batch.

    Args:
        recipe: a name on the shelf, a path, or a Recipe.
        prompts: a .txt, .csv, .jsonl or .parquet file on a disk or at a URL, a folder of pictures, or "-" for
            standard input.
        folder: where to write, on a disk or at a URL such as s3://bucket/name.
        batch_size: pictures at once; "auto" tries what fits.
        format: of the files.
        shards: pictures per WebDataset tar; 0 writes one file per picture.
        strict: refuse the whole file for one bad row.
        resume: resume an interrupted run, or refuse.
        prompt: for rows that bring none, such as those of a folder of pictures.
        precision: Lightning's; it belongs to what is made.
        promise: make every picture under the recipe's certificate, at the setting that it certifies.
    """

    def __init__(
        self,
        recipe: Recipe | str | Path,
        prompts: str | Path,
        folder: str | Path,
        batch_size: int | Literal["auto"] = "auto",
        format: Format = "png",
        shards: int = 0,
        strict: bool = False,
        resume: bool = False,
        prompt: str | None = None,
        precision: str = "32-true",
        promise: bool = False,
    ) -> None:
        read = recipe if isinstance(recipe, Recipe) else Recipe.read(recipe)
        self.recipe, self.certificate = certified(read, promise)
        self.prompts = normal(prompts) if is_url(prompts) else Path(prompts)
        self.folder = folder_of(folder)
        self.batch_size: int | Literal["auto"] = batch_size
        self.format: Format = format
        self.shards, self.strict, self.resume = shards, strict, resume
        self.prompt, self.precision = prompt, precision
        self.source: Source | None = None
        self.ledger = Ledger(self.folder)
        self._begun = False

    def begin(self) -> None:
        """Once, in the first process: refuse what cannot be, then put the folder in order.

        Raises:
            BadFile, Unfinished: before anything is loaded.
        """
        if self._begun:
            return
        with tempfile.TemporaryDirectory(prefix="ditstack-") as folder:
            found = self._find(Path(folder))
            self._open(found)
            self.source = self._keep(found)
        write(self.folder, "recipe.yaml", self.recipe.to_yaml().encode())
        if self.certificate is not None:
            write(self.folder, CERTIFICATE, self.certificate.model_dump_json(indent=1, exclude={"scores"}).encode())
        self._begun = True

    def begin_without_rows(self) -> None:
        """The same where another's DataLoader brings the rows."""
        self.source = Source(Path("-"), "loader", "", 0)
        self.ledger.open(self.terms(), self.resume)
        write(self.folder, "recipe.yaml", self.recipe.to_yaml().encode())

    def leave(self) -> None:
        """Let go of the folder, however the run ended; the next one looks at the prompts anew."""
        self.ledger.leave()
        self._begun, self.source = False, None

    def join(self) -> None:
        """In the other processes, after the first one has begun.

        Raises:
            BadFile: the prompts are no longer those that the run was begun with.
        """
        self.ledger.join()
        if self.source is not None:
            return
        ours = (name for name in self.folder.names("parts") if is_passing(name))
        kept = next((name for name in ours if name.startswith("prompts.")), None)
        subject = self.prompt is None
        path = Path(self.prompts) if kept is None else self.folder.local(f"parts/{kept}")
        self.source = Source.find(path, None, subject, str(self.prompts), self._home())
        if self.source.sha256 != (self.ledger.terms() or {}).get("prompts file"):
            raise BadFile(f"the prompts file {self.prompts} changed while the run was begun; start it again")

    def _find(self, temporary: Path) -> Source:
        """The prompts, looked at; standard input and what lies elsewhere are copied to a temporary folder first."""
        subject, name = self.prompt is None, str(self.prompts)
        if name == "-":
            kind = spool(sys.stdin.buffer, temporary / "stdin")
            return Source.find(temporary / "stdin", kind, subject, name, self._home())
        if isinstance(self.prompts, Path):
            return Source.find(self.prompts, None, subject, name, self._home())
        copy = temporary / f"prompts{Path(name).suffix}"
        with copy.open("wb") as file:
            fetch(name, file)
        return Source.find(copy, None, subject, name, self._home())

    def _keep(self, found: Source) -> Source:
        """A copy of the prompts for every process of the run: whatever happens to the file, a row is what it was.

        Raises:
            BadFile: the file changed since it was looked at.
        """
        if found.kind == "folder":
            return found
        name, digest = f"parts/prompts{found.kind}", hashlib.sha256()
        with opened(found.path, "the prompts file") as lines, self.folder.writing(name) as copy:
            while chunk := lines.read(1 << 20):
                digest.update(chunk)
                copy.write(chunk)
        if digest.hexdigest() != found.sha256:
            raise BadFile(f"the prompts file {self.prompts} changed while it was read; start again")
        return replace(found, path=self.folder.local(name))

    def _home(self) -> str:
        """Where the pictures lie that rows name."""
        if isinstance(self.prompts, Path):
            return str(self.prompts if self.prompts.is_dir() else self.prompts.parent)
        return self.prompts.rpartition("/")[0]

    def terms(self) -> dict[str, Any]:
        """What must be the same for a run to go on with another; each key names itself in the refusal."""
        assert self.source is not None
        resolved = self.recipe.resolved()
        for stage, adapter in self.recipe.stages():
            resolved[stage] = {key: one for key, one in resolved[stage].items() if key not in adapter.incidental}
        resolved = {key: value for key, value in resolved.items() if key not in ("prompts", "calibration", "quality")}
        terms = {
            "recipe": resolved,
            "prompts file": self.source.sha256,
            "prompt": self.prompt,
            "format": self.format,
            "shard size": self.shards,
            "precision": self.precision,
        }
        if self.certificate is not None:
            terms["certificate"] = self.certificate.digest
        return json.loads(json.dumps(terms))

    @property
    def size(self) -> int:
        """The batch size that the folder's pictures are made in; 0 while it is not settled yet."""
        known = self.ledger.terms() or {}
        return int(known.get("batch_size", 0)) if known.get("batch_size_asked") == self.batch_size else 0

    def settle_size(self, largest: int, world: int) -> None:
        """Keep the batch size, for every process and for runs that go on with this one.

        It is what fits, but not so large that some of `world` processes would have nothing to do.
        """
        items = islice(items_of((row for row in self.rows() if isinstance(row, GoodRow)), 0), largest * world)
        size = max(1, min(largest, -(-sum(1 for _ in items) // world)))
        self.ledger.set_terms({**(self.ledger.terms() or {}), "batch_size": size, "batch_size_asked": self.batch_size})

    def rows(self) -> Iterator[GoodRow | BadRow]:
        assert self.source is not None
        own_size = self.recipe.sampler.size is None
        return read_rows(self.source, self.prompt, own_size, fold=self.folder.folds_case())

    def batches(
        self,
        done: bytearray,
        rank: int = 0,
        world: int = 1,
        tell: Callable[[GoodRow | BadRow], None] = lambda row: None,
    ) -> Iterator[Batch]:
        """What one process has to make; `tell` hears of every row, good or bad."""

        def good() -> Iterator[GoodRow]:
            for row in self.rows():
                tell(row)
                if isinstance(row, GoodRow):
                    yield row

        size = self.size or (1 if self.batch_size == "auto" else self.batch_size)
        return share(cut(items_of(good(), self.recipe.seed), size), done, rank, world)

    def _open(self, source: Source) -> None:
        self.source = source
        if (fps := self.recipe.model.fps) is not None:
            check_format(fps > 0, self.format)
        if self.strict:
            self._refuse_bad_rows()
        self.ledger.open(self.terms(), self.resume)

    def _refuse_bad_rows(self) -> None:
        bad = [f"line {row.line}: {row.why}" for row in self.rows() if isinstance(row, BadRow)]
        if bad:
            more = f"\n  and {len(bad) - 20} more" if len(bad) > 20 else ""
            shown = "\n  ".join(bad[:20])
            raise BadFile(f"the prompts file {self.prompts} has {len(bad)} bad rows:\n  {shown}{more}")
