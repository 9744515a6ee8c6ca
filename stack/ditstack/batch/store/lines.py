"""Lines: one JSON object per finished picture; what is torn, doubled or another run's is told from what is whole."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

Entry = dict[str, Any]
MOST_PICTURES = 2**28
"""A number from here on is of no picture."""
TORN, OTHER = "torn", "of another run"


def line_of(entry: Entry) -> bytes:
    return json.dumps(entry, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace") + b"\n"


def read(lines: Iterable[bytes], run: str = "") -> Iterator[Entry | str]:
    """Each line's entry, or what is wrong with it: TORN or OTHER.

    Args:
        run: whose lines they are; "" takes those of any run.
    """
    for line in lines:
        try:
            entry = json.loads(line) if line.endswith(b"\n") else None
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict) or not _is_sound(entry):
            yield TORN
        else:
            yield OTHER if run and entry.get("run") != run else entry


def mark(done: bytearray, number: int) -> bool:
    """Note a number; whether it was noted before."""
    if number >= len(done):
        done.extend(bytes(number + 1 - len(done) + len(done) // 8))
    before, done[number] = bool(done[number]), 1
    return before


def _is_sound(entry: Entry) -> bool:
    file, member = entry.get("file"), entry.get("member")
    if not isinstance(file, str) or not re.fullmatch(r"(pictures/[^/\0]+|shards/[^/\0]+\.tar)", file):
        return False
    counts = [entry.get("number"), entry.get("bytes"), entry.get("offset", 0)]
    if not all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in counts):
        return False
    if file.startswith("shards/") != isinstance(member, str) or entry["number"] >= MOST_PICTURES:
        return False
    return re.fullmatch(r"[0-9a-f]{64}", str(entry.get("sha256"))) is not None
