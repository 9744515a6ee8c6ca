"""Sources: prompts files of every kind as a stream of rows, each with its line number; nothing is held in memory."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from ditstack.errors import BadFile
from ditstack.files import opened_atomically

KINDS = (".txt", ".csv", ".jsonl", ".parquet")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
SUBJECTS = ("prompt", "class_label", "image")
"""A table needs one of these columns."""

Raw = tuple[int, Mapping[str, Any] | str]
"""A line number, and the row's columns or what is wrong with it."""


@dataclass(frozen=True)
class Source:
    """A prompts file or a folder of pictures, as found: its kind, checksum, and about how many rows it has."""

    path: Path
    kind: str
    sha256: str
    rows: int
    subject: bool = True
    """Whether its rows must say what to paint."""

    @classmethod
    def find(cls, path: Path, kind: str | None = None, subject: bool = True) -> Source:
        """Look at a prompts file, refusing early what can be refused early.

        Raises:
            BadFile: it is missing, empty, of an unknown kind, or lacks the column `prompt`.
        """
        kind = kind or ("folder" if path.is_dir() else path.suffix.lower().replace(".ndjson", ".jsonl"))
        if kind not in (*KINDS, "folder"):
            raise BadFile(f"the prompts file {path} is of an unknown kind; wanted {', '.join(KINDS)}, - or a folder")
        try:
            digest, lines = _folder_digest(path) if kind == "folder" else _file_digest(path)
        except OSError as error:
            raise BadFile(f"the prompts file {path} cannot be read: {error.strerror}") from None
        source = cls(path, kind, digest, {".csv": lines - 1, ".parquet": 0}.get(kind, lines), subject)
        found = next(source.raw(), None)
        if found is None:
            wanted = "a picture" if kind == "folder" else "one prompt a line" if kind == ".txt" else "a row"
            raise BadFile(f"the prompts file {path} is empty; wanted at least {wanted}")
        return replace(source, rows=_parquet(path).metadata.num_rows) if kind == ".parquet" else source

    @property
    def has_ids(self) -> bool:
        """Whether rows may bring ids of their own, so that two could be equal."""
        return self.kind != ".txt"

    def raw(self) -> Iterator[Raw]:
        """The rows as they stand.

        Raises:
            BadFile: the file as a whole cannot be used.
        """
        if self.kind == "folder":
            yield from _folder(self.path)
        elif self.kind == ".parquet":
            yield from _parquet_rows(self.path, self._check_columns)
        else:
            with self.path.open("rb") as file:
                yield from _csv(file, self._check_columns) if self.kind == ".csv" else _LINES[self.kind](file)

    def _check_columns(self, found: list[str]) -> None:
        twice = next((name for name in found if found.count(name) > 1), None)
        if twice is not None:
            raise BadFile(f"the prompts file {self.path} has two columns {twice!r}; give each a name of its own")
        if self.subject and not set(SUBJECTS) & set(found):
            shown = ", ".join(repr(name) for name in found[:8])
            raise BadFile(f"the prompts file {self.path} has no column 'prompt'; found {shown}; or give --prompt")


def spool(stream: BinaryIO, path: Path) -> str:
    """Copy standard input to a file, since it can be read only once; returns its kind, seen from how it begins.

    Raises:
        BadFile: the disk is full.
    """
    first = b""
    with opened_atomically(path) as file:
        while chunk := stream.read(1 << 20):
            first = first or chunk.lstrip()[:1]
            file.write(chunk)
    return ".jsonl" if first == b"{" else ".txt"


def _file_digest(path: Path) -> tuple[str, int]:
    digest, lines, last = hashlib.sha256(), 0, b"\n"
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            lines, last = lines + chunk.count(b"\n"), chunk[-1:]
    return digest.hexdigest(), lines + (last != b"\n")


def _folder_digest(path: Path) -> tuple[str, int]:
    """Of names and sizes: reading every picture would take as long as they are large."""
    digest, count = hashlib.sha256(), 0
    for one in sorted(path.iterdir()):
        if one.suffix.lower() in (*PICTURES, ".txt"):
            digest.update(f"{one.name} {one.stat().st_size}\n".encode("utf-8", "surrogateescape"))
            count += one.suffix.lower() != ".txt"
    return digest.hexdigest(), count


def _text(data: bytes) -> str | None:
    """None where it is not UTF-8; a byte 0 tells of UTF-16, half of whose lines would pass."""
    try:
        return data.decode("utf-8-sig") if b"\0" not in data else None
    except UnicodeDecodeError:
        return None


def _txt(file: BinaryIO) -> Iterator[Raw]:
    for line, data in enumerate(file, 1):
        text = _text(data)
        if text is None:
            yield line, "not UTF-8 text"
        elif text.strip():
            yield line, {"prompt": text.strip()}


def _jsonl(file: BinaryIO) -> Iterator[Raw]:
    for line, data in enumerate(file, 1):
        text = _text(data)
        if text is not None and not text.strip():
            continue
        try:
            row = json.loads(text) if text is not None else "not UTF-8 text"
        except (ValueError, RecursionError) as error:
            yield line, f"not JSON: {error}"
            continue
        yield line, row if isinstance(row, dict | str) and row else 'wanted a JSON object such as {"prompt": "..."}'


_LINES = {".txt": _txt, ".jsonl": _jsonl}


def _csv(file: BinaryIO, check: Callable[[list[str]], None]) -> Iterator[Raw]:
    """Bytes that are not UTF-8 pass through the reader as lone surrogates, so that one bad line hides no others."""
    reader = csv.reader((data.decode("utf-8", "surrogateescape") for data in file), strict=True)
    try:
        header = [name.strip().removeprefix("\ufeff") for name in next(reader, [])]
    except csv.Error as error:
        raise BadFile(f"the prompts file has no header that can be read: {error}") from None
    if not header:
        return
    if isinstance(_whole(dict.fromkeys(header, "") | {"": "".join(header)}), str):
        raise BadFile("the prompts file is not UTF-8 text")
    check(header)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield line, f"{error}; is a quote left open?"
            continue
        if cells is None:
            return
        if len(cells) > len(header):
            yield line, f"found {len(cells)} cells for {len(header)} columns; quote a cell that holds a comma"
        elif any(cell.strip() for cell in cells):
            yield line, _whole(dict(zip(header, cells, strict=False)))


def _whole(row: dict[str, str]) -> dict[str, str] | str:
    return "not UTF-8 text" if _text("".join(row.values()).encode("utf-8", "surrogateescape")) is None else row


def _parquet(path: Path) -> Any:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise BadFile("reading .parquet needs pyarrow: pip install 'ditstack[parquet]'") from None
    try:
        return ParquetFile(path)
    except (ArrowException, OSError) as error:
        raise BadFile(f"the prompts file {path} is not a whole parquet file: {str(error).splitlines()[0]}") from None


def _parquet_rows(path: Path, check: Callable[[list[str]], None]) -> Iterator[Raw]:
    with _parquet(path) as file:
        check(file.schema_arrow.names)
        line = 0
        for batch in file.iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                line += 1
                yield line, row


def _pictures(path: Path) -> list[Path]:
    return sorted(one for one in path.iterdir() if one.suffix.lower() in PICTURES and not one.name.startswith("."))


def _folder(path: Path) -> Iterator[Raw]:
    """Each picture, with the prompt in a .txt of the same name beside it if there is one."""
    for line, one in enumerate(_pictures(path), 1):
        row: dict[str, Any] = {"id": one.stem, "image": one.name}
        words = one.with_suffix(".txt")
        if words.is_file():
            row["prompt"] = words.read_text(encoding="utf-8", errors="replace").strip()
        yield line, row
