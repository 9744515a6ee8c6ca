"""Disk: what is left when it is full, at any moment."""

import errno
import os
from pathlib import Path

import pytest

from ditstack.batch.run import Job
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
    assert not [path for path in (tmp_path / "out").rglob(".*")]


def refusal(job: Job) -> str:
    try:
        job.run()
    except BadFile as error:
        return str(error)
    return ""
