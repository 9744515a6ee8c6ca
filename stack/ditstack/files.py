"""Files: what is written appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ditstack.errors import BadFile


def home() -> Path:
    """Where ditstack keeps what it found out on this machine: $DITSTACK_HOME, or in the user's cache folder."""
    return Path(os.environ.get("DITSTACK_HOME") or Path.home() / ".cache" / "ditstack")


def write_atomically(path: Path, data: bytes) -> None:
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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise BadFile(f"{path} cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise BadFile(f"{path} cannot be written: {error.strerror}") from None
    finally:
        Path(temporary).unlink(missing_ok=True)


@contextmanager
def folder_atomically(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block ends well, and vanishes when it does not.

    Raises:
        BadFile: `path` holds something already, or cannot be written. Raised before the block runs.
    """
    if path.exists() and not overwrite and (not path.is_dir() or any(path.iterdir())):
        raise BadFile(f"{path} holds something already; name another folder with --out, or add --overwrite")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise BadFile(f"{path} cannot be written: {error.strerror}") from None
    try:
        os.chmod(temporary, 0o755)
        yield temporary
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
        os.replace(temporary, path)
    except OSError as error:
        raise BadFile(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def free_folder(path: Path) -> Path:
    """`path`, or `path-2`, `path-3`, ...: the first that is not there."""
    candidates = (path, *(path.with_name(f"{path.name}-{number}") for number in range(2, 10_000)))
    return next(one for one in candidates if not one.exists())
