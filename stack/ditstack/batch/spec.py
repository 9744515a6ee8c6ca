"""Batch spec: what a batch is to make, from what, and where; begun in a new folder or gone on with."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from ditstack.batch.encode import Format, check_format
from ditstack.batch.rows.batches import Batch, cut, items_of, share
from ditstack.batch.rows.check import BadRow, GoodRow, read_rows
from ditstack.batch.rows.sources import Source, spool
from ditstack.batch.store.manifest import Ledger
from ditstack.errors import BadFile
from ditstack.files import opened_atomically, write_atomically
from ditstack.recipe.recipe import Recipe


class BatchSpec:
    """One batch.

    Args:
        recipe: a name on the shelf, a path, or a Recipe.
        prompts: a .txt, .csv, .jsonl or .parquet file, a folder of pictures, or "-" for standard input.
        batch_size: pictures at once; "auto" tries what fits.
        format: of the files.
        shards: pictures per WebDataset tar; 0 writes one file per picture.
        strict: refuse the whole file for one bad row.
        resume: insist that there is something to go on with.
        prompt: for rows that bring none, such as those of a folder of pictures.
        precision: Lightning's; it belongs to what is made.
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
    ) -> None:
        self.recipe = recipe if isinstance(recipe, Recipe) else Recipe.read(recipe)
        self.prompts, self.folder = Path(prompts), Path(folder)
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
        if str(self.prompts) == "-":
            with tempfile.TemporaryDirectory(prefix="ditstack-") as folder:
                file = Path(folder) / "stdin"
                spooled = self._find(file, spool(sys.stdin.buffer, file))
                self._open(spooled)
                kept = self.ledger.parts / f"stdin{spooled.kind}"
                with file.open("rb") as lines, opened_atomically(kept) as copy:
                    shutil.copyfileobj(lines, copy)
            self.source = self._find(kept)
        else:
            self._open(self._find(self.prompts))
        write_atomically(self.folder / "recipe.yaml", self.recipe.to_yaml().encode())
        self._begun = True

    def begin_without_rows(self) -> None:
        """The same where another's DataLoader brings the rows."""
        self.source = Source(Path("-"), "loader", "", 0)
        self.ledger.open(self.terms(), self.resume)
        write_atomically(self.folder / "recipe.yaml", self.recipe.to_yaml().encode())

    def join(self) -> None:
        """In the other processes, after the first one has begun."""
        if self.source is None:
            kept = next(self.ledger.parts.glob("stdin.*"), None) if str(self.prompts) == "-" else self.prompts
            self.source = self._find(kept or self.prompts)

    def _find(self, path: Path, kind: str | None = None) -> Source:
        return Source.find(path, kind, subject=self.prompt is None)

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
        return json.loads(json.dumps(terms))

    @property
    def size(self) -> int:
        """The batch size; 0 while it is not known yet."""
        if self.batch_size != "auto":
            return self.batch_size
        return int((self.ledger.terms() or {}).get("batch_size", 0))

    def set_size(self, size: int) -> None:
        """Keep what `auto` found, for every process and for runs that go on with this one."""
        self.ledger.set_terms({**(self.ledger.terms() or {}), "batch_size": size})

    def rows(self) -> Iterator[GoodRow | BadRow]:
        assert self.source is not None
        own_size = self.recipe.sampler.size is None
        return read_rows(self.source, self.prompt, own_size, fold=self.ledger.folds())

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

        return share(cut(items_of(good(), self.recipe.seed), max(self.size, 1)), done, rank, world)

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
