"""Folders: a command writes into a folder of its own, which carries a mark; what others put there is left alone.

    OUT/.ditstack        the mark: which command the folder belongs to, and the files that it wrote, by checksum
    .OUT.ditstack/       beside OUT while it is written: lock, new/ (what will appear), old/ (what is replaced, and put
                         back after a kill), done/ (what was replaced)

A folder that is nobody's (new, or empty) becomes ours; one that holds anything else without the mark is refused. A file
of ours that was changed since is the user's.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ditstack.errors import BadFile, Unfinished
from ditstack.files import expand, free_folder, is_there, why, write_atomically
from ditstack.marks import MARK, Mark, checksum, require_own_file

LOCK = ".ditstack.lock"


def place(path: Path) -> Path:
    """Where a folder really lies: links followed, `~` replaced.

    Raises:
        BadFile: it is the working folder, the home folder, a root, or above one of these; or no path at all.
    """
    try:
        path = expand(path)
        real = path.resolve()
    except (OSError, RuntimeError) as error:
        raise BadFile(f"{path} cannot be written: {error}") from None
    if not is_there(real, "the folder") and is_there(path) and path.is_symlink():
        raise BadFile(f"{path} is a link to nothing; name a folder of its own with --out")
    for name, kept in _kept():
        if any(_same(real, one) for one in (kept, *kept.parents)):
            whose = name if _same(real, kept) else f"above {name}"
            raise BadFile(f"{path} is {whose}, which holds other things; name a folder of its own with --out")
    return real


def _kept() -> Iterator[tuple[str, Path]]:
    """Folders that are never written into as a whole."""
    with suppress(OSError):
        yield "the working folder", Path.cwd()
    with suppress(OSError, RuntimeError):
        yield "your home folder", Path.home().resolve()


def _same(one: Path, other: Path) -> bool:
    """Whether two paths are one folder, also on a disk that takes Out and OUT for the same."""
    try:
        return one == other or os.path.samefile(one, other)
    except OSError:
        return False


def require_own(folder: Path, kind: str, ours: Callable[[Path], bool] = lambda folder: False) -> Mark | None:
    """The mark of a folder that `kind` may write into; None where it has none yet.

    Args:
        ours: tells of a folder without a mark whether this command wrote it all the same.

    Raises:
        BadFile: it holds something that this command did not write.
    """
    if not is_there(folder, "the folder"):
        return None
    if not folder.is_dir():
        raise BadFile(f"{folder} is not a folder; name another one with --out")
    try:
        empty = not any(one.name != LOCK for one in folder.iterdir())
    except OSError as error:
        raise BadFile(f"{folder} cannot be read: {why(error)}") from None
    mark = Mark.read(folder)
    if mark is None and not empty and not ours(folder):
        raise BadFile(f"{folder} holds something already that ditstack did not write; name another folder with --out")
    if mark is not None and mark.kind != kind:
        raise BadFile(f"{folder} holds something already, of `ditstack {mark.kind}`; name another folder with --out")
    return mark


@contextmanager
def own_folder(path: Path, kind: str, ours: Callable[[Path], bool] = lambda folder: False) -> Iterator[Path]:
    """A folder of one command, which is written piece by piece and gone on with: marked, and locked inside the block.

    Args:
        ours: tells of a folder without a mark whether this command wrote it all the same.

    Raises:
        BadFile: it is not this command's, or cannot be written. Nothing was changed.
        Unfinished: another process writes into it.
    """
    folder = place(path)
    mark = require_own(folder, kind, ours)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadFile(f"{path} cannot be written: {why(error)}") from None
    with _locked(folder / LOCK, path):
        if mark is None:
            Mark(kind).write(folder)
        yield folder


@contextmanager
def folder_atomically(path: Path, overwrite: bool = False, kind: str = "run") -> Iterator[Path]:
    """A temporary folder whose content appears in `path` when the block ends well, and vanishes when it does not.

    Args:
        overwrite: replace what the same command wrote there. Files of others stay, here too.

    Raises:
        BadFile: before the block, `path` is not this command's; after it, what was made had to go to another folder.
        Unfinished: another process writes into it.
    """
    folder = place(path)
    require_own(folder, kind)
    with _work(folder, path) as work:
        mark = require_own(folder, kind)
        if mark is not None and mark.files and not overwrite:
            raise BadFile(f"{path} holds something already; name another folder with --out, or add --overwrite")
        new = work / "new"
        _make(new, path)
        yield new
        try:
            _appear(work, folder, kind)
        except OSError as error:
            raise BadFile(f"{path} cannot be written: {why(error)}") from error


def rewrite_own(path: Path, name: str, data: bytes) -> None:
    """Write a file of a folder that `folder_atomically` made once more; one that others changed meanwhile stays.

    Raises:
        BadFile: it was changed, or cannot be written.
    """
    folder = place(path)
    mark = Mark.read(folder)
    if mark is None or not mark.owns(folder, name):
        raise BadFile(f"{folder / name} was changed by somebody else meanwhile, and is left alone")
    try:
        mark.rewrite(folder, name, data)
    except OSError as error:
        raise BadFile(f"{path} cannot be written: {why(error)}") from error


@contextmanager
def own_file(
    path: Path, ours: Callable[[Path], bool] = lambda path: False, more: str = ""
) -> Iterator[Callable[[bytes], None]]:
    """A file of one command, which the block writes with what it is given; nobody else writes it meanwhile.

    Args:
        ours: tells of a plain file whether we wrote it.
        more: what else the user can do, such as ", or add --overwrite".

    Raises:
        BadFile: before the block, the file is not ours; in `write`, what was made had to go to another file.
        Unfinished: another process makes it.
    """
    path = expand(path)
    require_own_file(path, ours, more)
    lock = path.with_name(f".{path.name[:100]}{MARK}-lock")
    _make(path.parent, path)

    def write(data: bytes) -> None:
        try:
            require_own_file(path, ours)
        except BadFile:
            other = free_folder(path.with_name(f"{path.stem}-2{path.suffix}"))
            write_atomically(other, data)
            raise BadFile(
                f"{path} was written by somebody else meanwhile, which is left alone; what was made is in {other}"
            ) from None
        write_atomically(path, data)

    with _locked(lock, path):
        try:
            yield write
        finally:
            lock.unlink(missing_ok=True)


@contextmanager
def _work(folder: Path, shown: Path) -> Iterator[Path]:
    """The hidden folder beside (or, where that is another disk, inside) a folder; locked, and gone afterwards."""
    work = _beside(folder)
    if is_there(work) and not (work.is_dir() and ((work / "lock").exists() or not any(work.iterdir()))):
        raise BadFile(f"{work} is in the way, and ditstack did not write it; move it, or name another --out")
    _make(work, shown)
    with _locked(work / "lock", shown):
        try:
            _undo(work, folder)
            yield work
        finally:
            _undo(work, folder)
            (work / "lock").unlink(missing_ok=True)
            with suppress(OSError):
                work.rmdir()


def _beside(folder: Path) -> Path:
    name = folder.name if len(os.fsencode(folder.name)) < 200 else hashlib.sha256(os.fsencode(folder.name)).hexdigest()
    inside = folder.is_dir() and (folder.is_mount() or not os.access(folder.parent, os.W_OK | os.X_OK))
    return (folder if inside else folder.parent) / f".{name}{MARK}"


def _make(folder: Path, shown: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadFile(f"{shown} cannot be written: {why(error)}") from None


@contextmanager
def _locked(file: Path, shown: Path) -> Iterator[None]:
    lock: Any = FileLock(file, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise Unfinished(f"another process is writing to {shown}; wait until it ends, or stop it") from None
    except OSError as error:
        raise BadFile(f"{shown} cannot be written: {why(error)}") from None
    try:
        yield
    finally:
        lock.release()


def _undo(work: Path, folder: Path) -> None:
    """Put back what was moved aside, where nothing new took its place, and remove the rest."""
    for name in _files(work / "old"):
        if not os.path.lexists(folder / name):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(work / "old" / name, folder / name)
    for part in ("new", "old", "done"):
        shutil.rmtree(work / part, ignore_errors=True)


def _files(folder: Path) -> list[str]:
    return sorted(str(one.relative_to(folder)) for one in folder.rglob("*") if not one.is_dir() or one.is_symlink())


def _appear(work: Path, folder: Path, kind: str) -> None:
    """Let what was made appear: at one blow where nothing is there, else file by file around those of others."""
    new, old = work / "new", work / "old"
    made = {name: [checksum(new / name)] for name in _files(new)}
    known = Mark.read(folder)
    gone = [name for name in known.files if known.owns(folder, name)] if known else []
    own = [*gone, MARK] if known else []
    foreign = [name for name in [*made, MARK] if os.path.lexists(folder / name) and name not in own]
    if foreign or (is_there(folder) and not folder.is_dir()):
        raise BadFile(_put_elsewhere(new, folder, Mark(kind, made), foreign))
    if not folder.exists():
        Mark(kind, made).write(new)
        os.replace(new, folder)
        return
    before = known.files if known else {}
    both = {name: [*before.get(name, []), *made.get(name, [])] for name in {*before, *made}}
    Mark(kind, both).write(folder)
    for name in gone:
        _move(folder, old, name)
    for name in made:
        _move(new, folder, name)
    if gone:
        os.replace(old, work / "done")
    Mark(kind, made).write(folder)
    _drop_empty(folder, gone)


def _put_elsewhere(new: Path, folder: Path, mark: Mark, foreign: list[str]) -> str:
    """Keep what was made in a folder of its own, and say so."""
    mark.write(new)
    other = free_folder(folder.with_name(f"{folder.name}-2"))
    os.replace(new, other)
    given = f"{folder} was given {', '.join(foreign[:3]) or 'other content'} by somebody else meanwhile"
    return f"{given}, which is left alone; what was made is in {other}"


def _move(source: Path, target: Path, name: str) -> None:
    (target / name).parent.mkdir(parents=True, exist_ok=True)
    os.replace(source / name, target / name)


def _drop_empty(folder: Path, names: list[str]) -> None:
    """Folders below that held only what was replaced."""
    for name in names:
        with suppress(OSError):
            if Path(name).parent != Path():
                (folder / name).parent.rmdir()
