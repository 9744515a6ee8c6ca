"""Manifest: what a kill leaves is put in order, and one folder holds one batch."""

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ditstack.batch.encode import encode, read_note
from ditstack.batch.store.disk import Disk
from ditstack.batch.store.lines import Entry
from ditstack.batch.store.manifest import Ledger, Part
from ditstack.batch.store.shards import Shards
from ditstack.errors import BadFile, Unfinished

TERMS = {"recipe": {"a": 1}, "prompts file": "x"}
PICTURE = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))


BEGUN: list[Ledger] = []


def begin(folder: Path, resume: bool = False) -> Ledger:
    BEGUN.append(Ledger(Disk(folder)))
    BEGUN[-1].open(TERMS, resume)
    return BEGUN[-1]


@pytest.fixture(autouse=True)
def _leave() -> Iterator[None]:
    yield
    while BEGUN:
        BEGUN.pop().leave()


def put(ledger: Ledger, number: int, data: bytes = b"picture") -> Entry:
    path = ledger.folder.scratch / "pictures" / f"{number}.png"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    entry = {"number": number, "file": f"pictures/{number}.png", "bytes": len(data), "sha256": digest}
    return {**entry, "run": ledger.run}


def numbers(ledger: Ledger) -> list[int]:
    return [number for number, done in enumerate(ledger.done()) if done]


def test_a_run_that_ended_leaves_one_manifest_and_nothing_else(tmp_path: Path) -> None:
    ledger = begin(tmp_path)
    for rank in range(2):
        part = Part(ledger, rank)
        part.add(put(ledger, rank))
        part.fail({"line": 9, "error": "bad"})
        part.close({"rank": rank})
    assert [one["rank"] for one in ledger.close(2)] == [0, 1]
    ledger.finish()
    assert numbers(ledger) == [0, 1]
    assert (tmp_path / "errors.jsonl").read_text().count("bad") == 2
    assert {path.name for path in tmp_path.iterdir()} == {
        ".ditstack",
        "batch.json",
        "manifest.jsonl",
        "errors.jsonl",
        "pictures",
    }


def test_after_a_kill_torn_lines_torn_files_and_temporary_files_are_gone(tmp_path: Path) -> None:
    ledger = begin(tmp_path)
    part = Part(ledger, 0)
    part.add(*(put(ledger, number) for number in range(5)))
    with (tmp_path / "parts" / "manifest-0.jsonl").open("ab") as file:
        file.write(b'{"number": 7, "file": "pic')
    (tmp_path / "pictures" / "1.png").write_bytes(b"pict")
    (tmp_path / "pictures" / "2.png").unlink()
    (tmp_path / "pictures" / ".3.png.77.ditstack-part").write_bytes(b"half")
    (tmp_path / ".manifest.jsonl.77.ditstack-part").write_bytes(b"half")
    ledger.leave()
    again = begin(tmp_path)
    assert numbers(again) == [0, 3, 4]
    assert not list((tmp_path / "pictures").glob(".*"))
    assert not (tmp_path / ".manifest.jsonl.77.ditstack-part").exists()
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["lock-0"]


def test_a_line_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    ledger = begin(tmp_path)
    part = Part(ledger, 0)
    part.add(put(ledger, 0), put(ledger, 0))
    ledger.leave()
    assert len(list(begin(tmp_path).entries())) == 1


def test_another_order_into_the_same_folder_is_refused_by_name(tmp_path: Path) -> None:
    begin(tmp_path).leave()
    with pytest.raises(BadFile, match="was begun with another recipe and another prompts file"):
        Ledger(Disk(tmp_path)).open({"recipe": {"a": 2}, "prompts file": "y"})
    begin(tmp_path, resume=True)


def test_a_folder_with_other_things_or_nothing_to_resume_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="found no run to resume"):
        Ledger(Disk(tmp_path / "new")).open(TERMS, resume=True)
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(BadFile, match="holds something already"):
        Ledger(Disk(tmp_path)).open(TERMS)
    with pytest.raises(BadFile, match="cannot be written: Not a directory"):
        Ledger(Disk(tmp_path / "mine.txt" / "out")).open(TERMS)


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    first = begin(tmp_path)
    with pytest.raises(Unfinished, match="another process is writing"):
        begin(tmp_path)
    first.leave()
    begin(tmp_path)


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    ledger = begin(tmp_path)
    part = Part(ledger, 0)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BadFile, match="cannot be written: No space left on device"):
        part.close({})


def test_shards_appear_whole_and_one_torn_picture_condemns_its_shard(tmp_path: Path) -> None:
    import tarfile

    ledger = begin(tmp_path)
    part, shards = Part(ledger, 0), Shards(ledger.folder)
    for start in (0, 2, 4):
        shard = shards.begin()
        for number in (start, start + 1):
            data = f"picture {number}".encode()
            digest = hashlib.sha256(data).hexdigest()
            entry = {"number": number, "file": f"pictures/{number}.png", "bytes": len(data), "sha256": digest}
            shard.add({**entry, "run": ledger.run}, data)
        if start < 4:
            part.add(*shard.close())
        else:
            shard.close()  # killed before its lines were written
    with tarfile.open(tmp_path / "shards" / "00000001.tar") as tar:
        assert tar.getnames() == ["00000002.json", "00000002.png", "00000003.json", "00000003.png"]
        line = tar.extractfile("00000003.json")
        assert line is not None
        assert json.load(line)["number"] == 3
    first = tmp_path / "shards" / "00000000.tar"
    first.write_bytes(first.read_bytes().replace(b"picture 1", b"pixture 1"))
    shards.begin()._file.close()  # killed while it was filled
    ledger.leave()
    assert numbers(begin(tmp_path)) == [2, 3]
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["00000001.tar"]


@pytest.mark.parametrize("format", ["png", "jpg", "webp"])
def test_a_picture_carries_its_note(format: str) -> None:
    note = {"prompt": "ein Bär 🐻 " * 100, "seed": 2**62}
    assert read_note(encode(PICTURE, format, note)) == note  # pyright: ignore[reportArgumentType]


def test_a_video_carries_its_note_and_a_picture_is_no_video() -> None:
    note = {"prompt": 'ein Bär 🐻 sagt "a = b; # c \\ d"\n' * 100, "seed": 3}
    data = encode(PICTURE.expand(3, 3, 16, 16), "mp4", note, 8)
    assert read_note(data) == note
    assert encode(PICTURE.expand(3, 3, 16, 16), "mp4", note, 8) == data
    with pytest.raises(BadFile, match="this model makes videos; write --format mp4"):
        encode(PICTURE.expand(3, 3, 16, 16), "png", note)
    with pytest.raises(BadFile, match="this model makes pictures; write --format png, jpg or webp"):
        encode(PICTURE, "mp4", note)
