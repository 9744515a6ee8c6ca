"""Marks: how a folder or a file says that ditstack wrote it, and that nobody has changed it since."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ditstack.errors import BadFile
from ditstack.files import expand, is_there, read_text, write_atomically

MARK = ".ditstack"


@dataclass
class Mark:
    """What a folder says of itself."""

    kind: str
    files: dict[str, list[str]] = field(default_factory=dict)
    """Checksums that a file of ours may have, by its path in the folder."""

    @classmethod
    def read(cls, folder: Path) -> Mark | None:
        """The mark of a folder; None where it has none that is whole."""
        try:
            found = json.loads((folder / MARK).read_bytes()[: 2**26])
            files = {str(name): [str(one) for one in sums] for name, sums in found["files"].items()}
            return cls(str(found["ditstack"]), files)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def write(self, folder: Path) -> None:
        data = {"ditstack": self.kind, "files": self.files}
        write_atomically(folder / MARK, (json.dumps(data, indent=1) + "\n").encode())

    def rewrite(self, folder: Path, name: str, data: bytes) -> None:
        """Write a file of ours once more; it is known as ours before, while and after it is replaced."""
        new = hashlib.sha256(data).hexdigest()
        Mark(self.kind, {**self.files, name: [*self.files.get(name, []), new]}).write(folder)
        write_atomically(folder / name, data)
        self.files[name] = [new]
        self.write(folder)

    def owns(self, folder: Path, name: str) -> bool:
        """Whether a file is as we wrote it."""
        return name in self.files and checksum(folder / name) in self.files[name]


def checksum(path: Path) -> str:
    """SHA-256 of a plain file; empty for anything else."""
    if path.is_symlink() or not path.is_file():
        return ""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def require_own_file(path: Path, ours: Callable[[Path], bool], more: str = "") -> None:
    """Refuse to replace a file that ditstack did not write.

    Args:
        ours: tells of a plain file whether we wrote it.
        more: what else the user can do, such as ", or add --overwrite".

    Raises:
        BadFile: with the sentence.
    """
    path = expand(path)
    if not is_there(path):
        return
    if not path.is_file():
        raise BadFile(f"{path} cannot be written: it is not a plain file; name another one with --out")
    if not ours(path):
        raise BadFile(f"{path} is there already, and ditstack did not write it; name another file with --out{more}")


def signed(text: str) -> str:
    """A text file of ours: its first line tells that it is as we wrote it."""
    return f"# written by ditstack, {_signature(text)}; a changed file is never replaced\n{text}"


def is_signed(path: Path) -> bool:
    """Whether a file is as `signed` made it."""
    try:
        first, _, rest = read_text(path).partition("\n")
    except BadFile:
        return False
    return first == signed(rest).partition("\n")[0]


def signed_html(text: str) -> str:
    """The same of a page, without its doctype, which comes first."""
    return (
        f"<!doctype html>\n<!-- written by ditstack, {_signature(text)}; a changed file is never replaced -->\n{text}"
    )


def is_signed_html(data: bytes) -> bool:
    """Whether a page is as `signed_html` made it."""
    text = data.decode("utf-8", "replace")
    return text == signed_html("\n".join(text.split("\n")[2:]))


def _signature(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def signed_json(data: dict[str, Any]) -> str:
    """The same of a JSON object, whose `$comment` tells it."""
    comment = f"written by ditstack, {_signature(json.dumps(data))}; a changed file is never replaced"
    return json.dumps({"$comment": comment, **data}, indent=2) + "\n"


def is_signed_json(path: Path) -> bool:
    """Whether a file is as `signed_json` made it."""
    try:
        text = read_text(path)
        data = json.loads(text)
        data.pop("$comment")
        return text == signed_json(data)
    except (BadFile, ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return False
