"""Shards: pictures packed into WebDataset tar files, each of which appears whole or not at all."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

from ditstack.batch.store.manifest import Entry, line_of
from ditstack.errors import BadFile


class Shard:
    """The tar that is being filled. Its pictures count once it is closed; a kill costs what it held."""

    def __init__(self, folder: Path, number: int) -> None:
        self.path = folder / "shards" / f"{number:08d}.tar"
        self.temporary = self.path.with_name(f".{self.path.name}.part")
        self.entries: list[Entry] = []
        try:
            self.path.parent.mkdir(exist_ok=True)
            self._file: Any = self.temporary.open("wb")
        except OSError as error:
            raise BadFile(f"{self.path} cannot be written: {error.strerror}") from None
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)

    def add(self, entry: Entry, data: bytes) -> None:
        """A picture and its line, under one key."""
        key, suffix = f"{entry['number']:08d}", entry["file"].rpartition(".")[2]
        entry |= {"file": f"shards/{self.path.name}", "member": f"{key}.{suffix}"}
        try:
            self._put(f"{key}.json", line_of(entry))
            self._put(entry["member"], data)
            entry["offset"] = self._tar.offset - _padded(len(data))
        except OSError as error:
            raise BadFile(f"{self.path} cannot be written: {error.strerror}") from None
        self.entries.append(entry)

    def _put(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))

    def close(self) -> list[Entry]:
        """Let the shard appear; the lines for the manifest."""
        try:
            self._tar.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self.temporary, self.path)
        except OSError as error:
            raise BadFile(f"{self.path} cannot be written: {error.strerror}") from None
        return self.entries

    def abandon(self) -> None:
        """Leave nothing."""
        self._file.close()
        self.temporary.unlink(missing_ok=True)


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
