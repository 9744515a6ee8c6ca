"""Writer: pictures of one process go to the disk, each with its line in the manifest, while the next are sampled."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ditstack.batch.encode import encode
from ditstack.batch.outcomes import Failed, Made
from ditstack.batch.rows.batches import Item
from ditstack.batch.rows.check import BadRow, Row
from ditstack.batch.spec import BatchSpec
from ditstack.batch.store.folder import Folder, write
from ditstack.batch.store.lines import Entry
from ditstack.batch.store.manifest import Part
from ditstack.batch.store.place import is_url
from ditstack.batch.store.shards import Shard, Shards
from ditstack.recipe.places import last_name
from ditstack.report import versions


class Writer:
    """One thread writes while the next batch is sampled, and is never more than one batch behind."""

    def __init__(self, spec: BatchSpec, rank: int, world: int, done: bytearray) -> None:
        self.spec, self.done = spec, done
        self.part = Part(spec.ledger, rank)
        self.before = sum(done)
        self.written = self.failed = 0
        self.seconds = self.waited = 0.0
        """Spent writing, and how much of that the sampling had to wait for."""
        resolved = spec.recipe.resolved()
        self._recipe = spec.recipe.public() | {"prompts": [], "calibration": []}
        digest = hashlib.sha256(json.dumps(resolved, sort_keys=True).encode()).hexdigest()[:16]
        self._same = {"recipe": spec.recipe.name, "recipe_sha256": digest, "versions": versions()}
        self._sampler = spec.recipe.sampler
        self._shards = Shards(spec.folder, rank, world) if spec.shards else None
        self._shard: Shard | None = None
        self._thread = ThreadPoolExecutor(1, "writer")
        self._pending: Future[None] | None = None

    def take(self, outcomes: Sequence[Made | Failed]) -> None:
        """Write a batch, once the last one is written.

        Raises:
            BadFile: the last one could not be written.
        """
        self.settle()
        self._pending = self._thread.submit(self._write_all, list(outcomes))

    def settle(self) -> None:
        """Wait until all that was taken is on the disk."""
        if self._pending is not None:
            started = time.perf_counter()
            pending, self._pending = self._pending, None
            try:
                pending.result()
            finally:
                self.waited += time.perf_counter() - started

    def refuse(self, row: BadRow) -> None:
        """Note a row that cannot be read."""
        self.failed += 1
        self.part.fail({"line": row.line, "id": row.id, "error": row.why})

    def close(self, totals: Entry) -> None:
        """Write what is left and leave the totals."""
        self.settle()
        self._thread.shutdown()
        self._close_shard()
        mine = {"written": self.written, "failed": self.failed, "write": self.seconds, "waited": self.waited}
        self.part.close({**totals, **mine})

    def abandon(self) -> None:
        """End the thread after the file in hand."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        if self._shard:
            self._shard.abandon()

    def _write_all(self, outcomes: list[Made | Failed]) -> None:
        started = time.perf_counter()
        entries: list[Entry] = []
        for one in outcomes:
            if one.number < len(self.done) and self.done[one.number]:
                continue
            if isinstance(one, Made):
                entries += self._write(one)
            else:
                self._fail(one)
        self.part.add(*entries)
        self.written += len(entries)
        self.seconds += time.perf_counter() - started

    def _fail(self, one: Failed) -> None:
        self.failed += 1
        self.part.fail({"line": one.line, "id": one.id, "copy": one.copy, "error": one.why})

    def _write(self, made: Made) -> list[Entry]:
        """The lines to add now; none while a shard is open."""
        entry = self._entry(made)
        note = {**entry, "recipe": self._recipe}
        note |= {"image": self._name(made.item.row.image)} if made.item.row.image is not None else {}
        note.pop("extra", None)  # as long as its owner likes; a jpg has room for 64 KiB
        try:
            data = encode(made.image, self.spec.format, note, made.fps)
        except (ValueError, OverflowError, struct.error) as error:
            self._fail(Failed(made.item, f"the {self.spec.format} cannot be written: {error}"))
            return []
        entry |= {"file": f"pictures/{made.item.name}.{self.spec.format}", "bytes": len(data)}
        entry |= {"sha256": hashlib.sha256(data).hexdigest(), "run": self.spec.ledger.run}
        if self._shards is None:
            write(self.spec.folder, entry["file"], data)
            return [entry]
        self._shard = self._shard or self._shards.begin()
        self._shard.add(entry, data, note.get("image"))
        return self._close_shard(add=False) if len(self._shard.entries) >= self.spec.shards else []

    def _close_shard(self, add: bool = True) -> list[Entry]:
        if self._shard is None:
            return []
        entries, self._shard = self._shard.close(), None
        if add:
            self.part.add(*entries)
            self.written += len(entries)
        return entries

    def _name(self, image: str) -> str:
        """A picture as it may be called in what travels: from where its rows lie, or by its last name."""
        source = self.spec.source
        if is_url(image) or source is None:
            return last_name(image)
        return last_name(os.path.relpath(image, source.home or "."))

    def _promised(self, made: Made) -> Entry:
        """Under a certificate, what was decided of a picture, how its steps ran, and its scores."""
        if made.account is None or self.spec.certificate is None:
            return {}
        return {"promise": {"certificate": self.spec.certificate.digest, **asdict(made.account)}}

    def _entry(self, made: Made) -> Entry:
        item: Item = made.item
        row: Row = item.row
        height, width = made.image.shape[-2:]
        guidance = self._sampler.guidance if row.guidance is None else row.guidance
        given = row.model_dump(include={"prompt", "negative_prompt", "class_label", "image", "strength"})
        if row.image is not None:
            given["image"] = _seen_from(self.spec.folder, row.image)
        entry: dict[str, Any] = {
            "number": item.number, "id": row.id, "copy": item.copy, "line": item.line, **given, "seed": item.seed,
            "width": width, "height": height, "steps": row.steps or self._sampler.steps, "guidance": guidance,
            **({"extra": row.model_extra} if row.model_extra else {}), **self._same, **self._promised(made),
        }  # fmt: skip
        return {key: value for key, value in entry.items() if value is not None}


def _seen_from(folder: Folder, image: str) -> str:
    """Where a picture lies, seen from the batch's folder: a URL as it is, a path relative to the folder."""
    if is_url(image):
        return image
    if is_url(folder.name):
        return last_name(image)
    return Path(os.path.relpath(image, folder.scratch)).as_posix()
