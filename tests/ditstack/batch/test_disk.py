"""Disk: what is left when it is full, at any moment."""

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest

from ditstack.batch.run import Job
from ditstack.batch.store.disk import Disk
from ditstack.errors import BadFile
from stub_batch import lines, paint, spec


@pytest.mark.parametrize("shards", [0, 2])
@pytest.mark.parametrize("room", [0, 1, 2, 4, 5, 7, 8, 9])
def test_a_disk_that_is_full_at_any_moment_is_one_sentence_and_the_run_goes_on_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, shards: int
) -> None:
    flush, left = os.fsync, [room]

    def fill(handle: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(handle)

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fill)
        said = refusal(Job(spec(tmp_path, shards=shards), make=paint))
    assert said.endswith("cannot be written: No space left on device") == (left[0] < 0)
    report = Job(spec(tmp_path, shards=shards), make=paint).run()
    assert report is not None
    assert report.pictures == 5
    assert sorted(line["number"] for line in lines(tmp_path)) == list(range(5))
    assert [path.name for path in (tmp_path / "out").rglob(".*")] == [".ditstack"]


@pytest.mark.parametrize("shards", [0, 2])
@pytest.mark.parametrize("room", [0, 3_000, 6_000, 9_000, 12_000, 20_000, 40_000])
def test_a_disk_that_takes_no_further_byte_is_one_sentence_and_the_pictures_end_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, shards: int
) -> None:
    """As a real one: what does not fit is refused by every write, also of what was held back until a close."""
    left = [room]

    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            left[0] -= len(data)
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    def opened(path: Path, mode: str = "r", buffering: int = -1, **more: Any) -> Any:
        if "out" not in path.parts or mode not in ("wb", "ab"):
            return plain(path, mode, buffering, **more)
        raw = Full(path, mode.replace("b", ""))
        return io.BufferedWriter(raw) if buffering else raw

    plain = Path.open
    with monkeypatch.context() as full:
        full.setattr(Path, "open", opened)
        said = refusal(Job(spec(tmp_path, shards=shards), make=paint))
    assert said.endswith("cannot be written: No space left on device") == (left[0] < 0)
    report = Job(spec(tmp_path, shards=shards), make=paint).run()
    assert report is not None
    assert sorted(line["number"] for line in lines(tmp_path)) == list(range(5))
    assert all(Disk(tmp_path / "out").holds(line) for line in lines(tmp_path))
    assert [path.name for path in (tmp_path / "out").rglob(".*")] == [".ditstack"]


def refusal(job: Job) -> str:
    try:
        job.run()
    except BadFile as error:
        return str(error)
    return ""
