"""Sources: prompts files of every kind as a stream of rows, each with its line number; nothing is held in memory."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from ditstack.errors import BadFile
from ditstack.files import LONGEST_LINE, opened, opened_atomically, read_text, text_lines

KINDS = (".txt", ".csv", ".jsonl", ".parquet")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
SUBJECTS = ("prompt", "class_label", "image")
"""A table needs one of these columns."""

MOST_COLUMNS = 1_000

TOO_LONG = "\ud800"
"""Stands for a line that is too long to be read; half a character, which no file holds."""

Raw = tuple[int, Mapping[str, Any] | str]
"""A line number, and the row's columns or what is wrong with it."""


@dataclass(frozen=True)
class Source:
    """A prompts file or a folder of pictures, as found: its kind, checksum, and about how many rows it has.

    Attributes:
        subject: whether its rows must say what to make.
        name: how messages call it, where the file itself is a copy.
        home: the folder or URL that the pictures of its rows are named from.
        sizes: of a folder, its files' sizes by name when it was looked at.
    """

    path: Path
    kind: str
    sha256: str
    rows: int
    subject: bool = True
    name: str = ""
    home: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def find(cls, path: Path, kind: str | None = None, subject: bool = True, name: str = "", home: str = "") -> Source:
        """Look at a prompts file, refusing early what can be refused early.

        Raises:
            BadFile: it is missing, empty, no plain file, of an unknown kind, or lacks the column `prompt`.
        """
        name, home = name or str(path), home or str(path if path.is_dir() else path.parent)
        kind = kind or ("folder" if path.is_dir() else path.suffix.lower().replace(".ndjson", ".jsonl"))
        if kind not in (*KINDS, "folder"):
            raise BadFile(f"the prompts file {name} is of an unknown kind; wanted {', '.join(KINDS)}, - or a folder")
        try:
            sizes = _sizes(path) if kind == "folder" else {}
            digest, lines = _folder_digest(sizes) if kind == "folder" else _file_digest(path)
        except OSError as error:
            raise BadFile(f"the prompts file {name} cannot be read: {error.strerror}") from None
        source = cls(
            path, kind, digest, {".csv": lines - 1, ".parquet": 0}.get(kind, lines), subject, name, home, sizes
        )
        found = next(source.raw(), None)
        if found is None:
            wanted = "a picture" if kind == "folder" else "one prompt a line" if kind == ".txt" else "a row"
            raise BadFile(f"the prompts file {name} is empty; wanted at least {wanted}")
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
            yield from _folder(self.path, self.sizes)
        elif self.kind == ".parquet":
            yield from _parquet_rows(self.path, self._check_columns)
        else:
            with opened(self.path, "the prompts file") as file:
                yield from _csv(file, self._check_columns) if self.kind == ".csv" else _LINES[self.kind](file)

    def _check_columns(self, found: list[str]) -> None:
        if len(found) > MOST_COLUMNS:
            raise BadFile(f"the prompts file {self.name} has {len(found):,} columns; wanted at most {MOST_COLUMNS:,}")
        twice = next((name for name, count in Counter(found).items() if count > 1), None)
        if twice is not None:
            raise BadFile(f"the prompts file {self.name} has two columns {twice!r}; give each a name of its own")
        if self.subject and not set(SUBJECTS) & set(found):
            shown = ", ".join(repr(name[:40]) for name in found[:8])
            raise BadFile(f"the prompts file {self.name} has no column 'prompt'; found {shown}; or give --prompt")


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
    with opened(path, "the prompts file") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            lines, last = lines + chunk.count(b"\n"), chunk[-1:]
    return digest.hexdigest(), lines + (last != b"\n")


def _sizes(path: Path) -> dict[str, int]:
    """Pictures and their prompts, by name."""
    found = sorted(one for one in path.iterdir() if one.suffix.lower() in (*PICTURES, ".txt"))
    return {one.name: one.lstat().st_size for one in found if not one.name.startswith(".")}


def _folder_digest(sizes: Mapping[str, int]) -> tuple[str, int]:
    """Of names and sizes: reading every picture would take as long as they are large."""
    digest = hashlib.sha256()
    for name, size in sizes.items():
        digest.update(f"{name} {size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest(), sum(1 for name in sizes if not name.lower().endswith(".txt"))


def _txt(file: BinaryIO) -> Iterator[Raw]:
    for line, text, wrong in text_lines(file):
        if wrong:
            yield line, wrong
        elif text.strip():
            yield line, {"prompt": text.strip()}


def _jsonl(file: BinaryIO) -> Iterator[Raw]:
    for line, text, wrong in text_lines(file):
        if not wrong and not text.strip():
            continue
        yield line, wrong or _object(text)


def _object(text: str) -> dict[str, Any] | str:
    """A line's JSON object, or what is wrong with it."""
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    if not isinstance(row, dict) or not row:
        return 'wanted a JSON object such as {"prompt": "..."}'
    return row if len(row) <= MOST_COLUMNS else f"found {len(row):,} columns; wanted at most {MOST_COLUMNS:,}"


_LINES = {".txt": _txt, ".jsonl": _jsonl}


def _csv(file: BinaryIO, check: Callable[[list[str]], None]) -> Iterator[Raw]:
    """Bytes that are not UTF-8 pass through the reader as lone surrogates, so that one bad line hides no others."""
    reader = csv.reader(_bounded(file), strict=True)
    try:
        header = [name.strip().removeprefix("\ufeff") for name in next(reader, [])]
    except csv.Error as error:
        raise BadFile(f"the prompts file has no header that can be read: {error}") from None
    if not header:
        return
    if isinstance(wrong := _whole({"": "".join(header)}), str):
        raise BadFile(f"the prompts file's header is {wrong}")
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


def _bounded(file: BinaryIO) -> Iterator[str]:
    """Lines as text, those that are too long cut off and marked."""
    while line := file.readline(LONGEST_LINE):
        short = line.endswith(b"\n") or len(line) < LONGEST_LINE
        while not line.endswith(b"\n") and (rest := file.readline(LONGEST_LINE)):
            short, line = False, rest if rest.endswith(b"\n") else line
        yield line.decode("utf-8", "surrogateescape") if short else f"{TOO_LONG}\n"


def _whole(row: dict[str, str]) -> dict[str, str] | str:
    text = "".join(row.values())
    if TOO_LONG in text:
        return f"longer than {LONGEST_LINE:,} bytes"
    return "not UTF-8 text" if "\0" in text or any("\ud800" <= one <= "\udfff" for one in text) else row


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
    from pyarrow import ArrowException

    with _parquet(path) as file:
        check(file.schema_arrow.names)
        line = 0
        try:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    line += 1
                    yield line, row
        except (ArrowException, OSError, ValueError) as error:
            reason = str(error).splitlines()[0][:200]
            raise BadFile(f"the prompts file cannot be read behind row {line}: {reason}") from None


def _folder(path: Path, sizes: Mapping[str, int]) -> Iterator[Raw]:
    """Each picture, with the prompt in a .txt of the same name beside it if there is one."""
    pictures = [name for name in sizes if not name.lower().endswith(".txt")]
    for line, name in enumerate(pictures, 1):
        row: dict[str, Any] = {"id": Path(name).stem, "image": name}
        words = Path(name).with_suffix(".txt").name
        try:
            if (path / name).lstat().st_size != sizes[name]:
                yield line, f"image: {name} changed while the run went on"
                continue
            if words in sizes:
                row["prompt"] = read_text(path / words).strip()
        except OSError as error:
            yield line, f"image: {name} cannot be read: {error.strerror}"
        except BadFile as error:
            yield line, str(error)
        else:
            yield line, row
