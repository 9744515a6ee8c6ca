"""Rows: what a prompts file asks for, checked row by row; a bad row is named by its line and the others go on."""

from __future__ import annotations

import os
import re
import sqlite3
import struct
import tempfile
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ditstack.batch.rows.sources import Source
from ditstack.batch.store.lines import line_of
from ditstack.batch.store.place import faults, filesystem, is_url, normal
from ditstack.errors import BadFile
from ditstack.files import LONGEST_PROMPT, opened

if TYPE_CHECKING:
    from PIL import Image

MOST_PIXELS = 2**24
MOST_EXTRA = 2**19
"""Bytes of the columns of a row that are carried through."""
Side = Annotated[int, Field(ge=16, le=16_384)]
Text = Annotated[str, Field(max_length=LONGEST_PROMPT)]


class Row(BaseModel):
    """The columns that mean something; others are carried through to the manifest."""

    model_config = ConfigDict(extra="allow", frozen=True)

    id: str
    prompt: Text | None = None
    negative_prompt: Text | None = None
    seed: Annotated[int, Field(ge=0, lt=2**62)] | None = None
    guidance: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    width: Side | None = None
    height: Side | None = None
    steps: Annotated[int, Field(ge=1, le=1_000)] | None = None
    class_label: Annotated[int, Field(ge=0)] | None = None
    num_images: Annotated[int, Field(ge=1, le=10_000)] = 1
    image: str | None = None
    strength: Annotated[float, Field(gt=0, le=1)] | None = None

    @field_validator("id", "prompt", "negative_prompt", "image")
    @classmethod
    def _text(cls, value: str | None) -> str | None:
        if value and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ValueError("half a character (a lone surrogate), which no file and no text encoder takes")
        return value

    @field_validator("id", mode="before")
    @classmethod
    def _name(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("id")
    @classmethod
    def _safe(cls, value: str) -> str:
        if re.search(r'[\x00-\x1f\x7f/\\~:*?"<>|]', value) or value.startswith((".", " ", "-")) or value.endswith(" "):
            raise ValueError('an id becomes a file name: no / \\ ~ : * ? " < > |, no dot, dash or space in front')
        if len(value.encode("utf-8", "surrogatepass")) > 150:
            raise ValueError("an id becomes a file name of at most 150 bytes")
        return value

    @model_validator(mode="after")
    def _sensible(self) -> Row:
        if (self.width is None) != (self.height is None):
            raise ValueError("width and height go together")
        if self.width and self.height and self.width * self.height > MOST_PIXELS:
            raise ValueError(f"{self.width} x {self.height} is more than {MOST_PIXELS} pixels")
        if self.class_label is None and self.image is None and not (self.prompt or "").strip():
            raise ValueError("no prompt, class_label or image")
        try:
            extra = len(line_of(self.model_extra or {}))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"a column that JSON cannot hold: {error}") from None
        if extra > MOST_EXTRA:
            raise ValueError(f"columns to carry through of {extra:,} bytes; wanted at most {MOST_EXTRA:,}")
        return self


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used: its line, and why. `index` counts rows from 0, good ones and bad."""

    line: int
    index: int
    id: str
    why: str


@dataclass(frozen=True)
class GoodRow:
    line: int
    index: int
    row: Row


def read_rows(
    source: Source, prompt: str | None = None, own_size: bool = False, fold: bool = False
) -> Iterator[GoodRow | BadRow]:
    """Every row of a source, checked.

    Args:
        prompt: for rows that bring none.
        own_size: a picture to start from decides the size where the row does not.
        fold: the disk takes names that differ only by case for the same.
    """
    seen = _Seen(fold) if source.has_ids else None
    for index, (line, raw) in enumerate(source.raw()):
        one = check_row(line, index, raw, prompt, source.home, own_size)
        if isinstance(one, GoodRow) and seen and (first := seen.note(one.row.id, line)):
            one = BadRow(line, index, one.row.id, f"id: {one.row.id!r} was used in line {first} already")
        yield one


def check_row(
    line: int, index: int, raw: Mapping[str, Any] | str, prompt: str | None, home: str, own_size: bool
) -> GoodRow | BadRow:
    """One row, checked; what is missing in it is supplied."""
    name = f"{index + 1:06d}"
    if isinstance(raw, str):
        return BadRow(line, index, name, raw)
    given = {key: value for key, value in raw.items() if value is not None and value != "" and value == value}
    given.setdefault("id", name)
    if prompt is not None:
        given.setdefault("prompt", prompt)
    try:
        row = Row.model_validate(given)
        return GoodRow(line, index, _with_picture(row, home, own_size) if row.image else row)
    except ValidationError as error:
        return BadRow(line, index, str(given["id"])[:150], _explain(error))
    except BadFile as error:
        return BadRow(line, index, str(given["id"])[:150], str(error))


def _with_picture(row: Row, home: str, own_size: bool) -> Row:
    """The row with the whole path of its picture; only the picture's header is read.

    Raises:
        BadFile: it is not a picture, or an absurd one.
    """
    place = str(row.image)
    if not is_url(place):
        place = f"{home}/{place}" if is_url(home) else str(Path(home) / place)
    with picture_file(place) as picture:
        width, height = (side // 16 * 16 for side in picture.size)
    size = {"width": width, "height": height} if own_size and row.width is None else {}
    return Row(**{**row.model_dump(exclude_none=True), "prompt": row.prompt or "", "image": place, **size})


@contextmanager
def picture_file(place: str) -> Iterator[Image.Image]:
    """A picture of the user's, open.

    Raises:
        BadFile: it is missing, torn, absurdly large, no plain file, or no picture; also where that shows only inside
            the block.
    """
    from PIL import Image

    try:
        with _opened(place) as file, Image.open(file) as picture:
            yield picture
    except BadFile:
        raise
    except (*faults(), SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise BadFile(f"image: {error}") from None


@contextmanager
def _opened(place: str) -> Iterator[Any]:
    if is_url(place):
        fs, path = filesystem(normal(place), "image:")
        with fs.open(path, "rb") as file:
            yield file
    else:
        if not os.path.lexists(place):
            raise BadFile(f"image: there is no file {place}")
        with opened(Path(place), "image:") as file:
            yield file


def _explain(error: ValidationError) -> str:
    out = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        found = "" if isinstance(item["input"], Mapping) else f"found {str(item['input'])[:80]!r}; "
        out.append(f"{where}: {found}{message[:1].lower()}{message[1:]}" if where else message)
    return "; ".join(out)


class _Seen:
    """The ids so far, in a temporary file rather than in memory."""

    def __init__(self, fold: bool) -> None:
        self.fold = fold
        self.table = sqlite3.connect("", isolation_level=None)
        self.table.execute("PRAGMA journal_mode=OFF")
        self.table.execute("CREATE TABLE seen (id TEXT PRIMARY KEY, line INT) WITHOUT ROWID")
        self.table.execute("BEGIN")

    def note(self, name: str, line: int) -> int:
        """The line in which an id was first used; 0 where it is new.

        Raises:
            BadFile: the temporary file cannot grow.
        """
        name = unicodedata.normalize("NFC", name).casefold() if self.fold else name
        try:
            return self._note(name, line)
        except sqlite3.OperationalError as error:
            raise BadFile(f"the ids cannot be kept in {tempfile.gettempdir()}: {error}; TMPDIR names another") from None

    def _note(self, name: str, line: int) -> int:
        if self.table.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (name, line)).rowcount:
            return 0
        return self.table.execute("SELECT line FROM seen WHERE id = ?", (name,)).fetchone()[0]
