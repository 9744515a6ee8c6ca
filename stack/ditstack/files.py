"""Files: what is written appears whole or not at all, and what is read is a plain file of a bounded size."""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

from ditstack.errors import BadFile

LONGEST_PROMPT = 5_000
"""Characters of one prompt; text encoders read some hundred words."""
MOST_PROMPTS = 100_000
"""Of a run, whose pictures are in memory together; `ditstack batch` takes any number."""
LARGEST_TEXT = 2**26
"""Bytes of a text file that is read as a whole."""
LONGEST_LINE = 2**20
"""Bytes of one line of a file that is read line by line."""
_KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


def home() -> Path:
    """Where ditstack keeps what it found out on this machine: $DITSTACK_HOME, or in the user's cache folder.

    Raises:
        BadFile: nothing says where the user's home is.
    """
    if named := os.environ.get("DITSTACK_HOME"):
        return Path(named)
    try:
        return Path.home() / ".cache" / "ditstack"
    except RuntimeError:
        raise BadFile("this user has no home folder; set HOME, or DITSTACK_HOME to a folder for ditstack") from None


@contextmanager
def at_home_in(folder: Path) -> Iterator[None]:
    """Inside, what ditstack keeps on this machine lies in `folder`, such as factors without a name of their own."""
    before = os.environ.get("DITSTACK_HOME")
    os.environ["DITSTACK_HOME"] = str(folder)
    try:
        yield
    finally:
        del os.environ["DITSTACK_HOME"]
        if before is not None:
            os.environ["DITSTACK_HOME"] = before


def expand(path: str | Path) -> Path:
    """A path with `~` and `~name` replaced.

    Raises:
        BadFile: there is no such user, or the path holds a zero byte.
    """
    if "\0" in str(path):
        raise BadFile(f"{str(path)!r} is not a path: it holds a zero byte")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise BadFile(f"{path}: there is no user of that name, or no home is known; write the path out") from None


def why(error: OSError) -> str:
    """The system's reason in words."""
    return error.strerror or str(error) or type(error).__name__


def write_atomically(path: Path, data: bytes | bytearray) -> None:
    """Write a file under a temporary name beside it, flush it to the disk, and rename it.

    Raises:
        BadFile: the place cannot be written.
    """
    with opened_atomically(path) as file:
        file.write(data)


@contextmanager
def opened_atomically(path: Path) -> Iterator[IO[bytes]]:
    """The same for what is written piece by piece: the file appears when the block ends well.

    Raises:
        BadFile: the place cannot be written.
    """
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)  # less the user's umask
    except OSError as error:
        raise BadFile(f"{path} cannot be written: {why(error)}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise BadFile(f"{path} cannot be written: {why(error)}") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def free_folder(path: Path) -> Path:
    """`path`, or `path-2`, `path-3`, ...: the first that is not there."""
    candidates = (path, *(path.with_name(f"{path.name}-{number}") for number in range(2, 10_000)))
    return next(one for one in candidates if not os.path.lexists(one))


def is_there(path: Path, what: str = "the file") -> bool:
    """Whether something lies there, be it a link to nothing.

    Raises:
        BadFile: the system cannot say, such as for a name that is too long.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise BadFile(f"{what} {path} cannot be used: {getattr(error, 'strerror', None) or error}") from None
    return True


@contextmanager
def opened(path: Path, what: str = "the file") -> Iterator[BinaryIO]:
    """A plain file, open for reading. Nothing else is opened: a pipe may never answer, a device may never end.

    Args:
        what: how a refusal calls it, such as "the prompts file".

    Raises:
        BadFile: it is missing, cannot be read, or is no plain file.
    """
    if kind := _kind(path):
        raise BadFile(f"{what} {path} cannot be read: it is {kind}; wanted a plain file")
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise BadFile(f"{what} {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    with os.fdopen(handle, "rb") as file:
        yield file


def _kind(path: Path) -> str:
    """What a path is that is no plain file; empty for a plain one and for nothing."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return ""
    return next((name for matches, name in _KINDS.items() if matches(mode)), "")


def read_bytes(path: Path, most: int = LARGEST_TEXT, what: str = "the file") -> bytes:
    """A whole plain file.

    Raises:
        BadFile: it cannot be read, or is larger than `most` bytes.
    """
    with opened(path, what) as file:
        try:
            data = file.read(most + 1)
        except OSError as error:
            raise BadFile(f"{what} {path} cannot be read: {why(error)}") from None
    if len(data) > most:
        raise BadFile(f"{what} {path} is larger than {most:,} bytes, the most that is read")
    return data


def read_text(path: Path, most: int = LARGEST_TEXT, what: str = "the file") -> str:
    """A whole plain file as text, without the mark (BOM) that some editors put in front.

    Raises:
        BadFile: it cannot be read, is larger than `most` bytes, or is not UTF-8.
    """
    try:
        return read_bytes(path, most, what).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFile(f"{what} {path} is not UTF-8 text (byte {error.start})") from None


def read_json(path: Path, most: int = LARGEST_TEXT, what: str = "the file") -> Any:
    """What a JSON file holds.

    Raises:
        BadFile: it cannot be read, or is not whole.
    """
    try:
        return json.loads(read_text(path, most, what))
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{what} {path} is not whole JSON: {str(error)[:200]}") from None


def text_lines(file: BinaryIO) -> Iterator[tuple[int, str, str]]:
    """Lines of UTF-8 text as (number from 1, text, what is wrong with it); at most LONGEST_LINE bytes are held.

    A line ends at \\n or \\r\\n only: U+2028 and the like belong to the text. A BOM is no text.
    """
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE and not line.endswith(b"\n"):
            while (rest := file.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
                pass
            yield number, "", f"longer than {LONGEST_LINE:,} bytes"
            continue
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:  # half of the lines of UTF-16 would pass as UTF-8
            yield number, "", "not UTF-8 text"
        else:
            yield number, text.removesuffix("\n").removesuffix("\r"), ""


def read_prompts(path: Path) -> list[str]:
    """One prompt a line; empty lines are passed over.

    Raises:
        BadFile: it cannot be read, is not UTF-8 text, holds no prompt, or more or longer ones than can be.
    """
    found: list[str] = []
    with opened(path, "the prompts file") as file:
        for number, text, wrong in text_lines(file):
            if wrong:
                raise BadFile(f"the prompts file {path} cannot be used: line {number} is {wrong}")
            if text.strip():
                found.append(text.strip())
            if len(found) > MOST_PROMPTS:
                raise BadFile(f"the prompts file {path} holds more than {MOST_PROMPTS:,} prompts; use `ditstack batch`")
    if not found:
        raise BadFile(f"the prompts file {path} holds no prompt; write one a line")
    check_prompts(found)
    return found


def check_prompts(prompts: list[str]) -> None:
    """Refuse prompts that no text encoder was made for.

    Raises:
        BadFile: it names the first that is too long, or that no file could hold.
    """
    for place, prompt in enumerate(prompts, 1):
        if len(prompt) > LONGEST_PROMPT:
            found = f"prompt {place} has {len(prompt):,} characters"
            raise BadFile(f"{found}; wanted at most {LONGEST_PROMPT:,}: {prompt[:40]!r}...")
        if any("\ud800" <= letter <= "\udfff" for letter in prompt):
            raise BadFile(f"prompt {place} is not UTF-8 text: {prompt[:40]!r}")
