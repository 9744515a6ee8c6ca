"""Ledger: whatever happens to the books of a batch, every row ends with one picture, and what was repaired is said."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ditstack.assembly.sample import Pictures
from ditstack.batch.rows.batches import Item
from ditstack.batch.run import Job
from ditstack.batch.store.disk import Disk
from ditstack.errors import BadFile, Unfinished
from stub_batch import files, go_on, lines, paint, spec

COUNT = 8
WORDS = "".join(f"picture {place}\n" for place in range(COUNT))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A finished run as files, and one as shards of five."""
    homes = {shards: tmp_path_factory.mktemp(f"whole-{shards}") for shards in (0, 5)}
    for shards, home in homes.items():
        go_on(spec(home, WORDS, shards=shards))
    return homes


def damaged(data: bytes, dice: random.Random) -> bytes:
    """A manifest that was cut at a random byte, then perhaps doubled, spoilt or written to by others."""
    cut = data[: dice.randrange(len(data))]
    whole = data.splitlines(keepends=True)
    other = json.dumps({**json.loads(whole[0]), "run": "another", "number": 3}).encode() + b"\n"
    number = (
        json.dumps({**json.loads(whole[1]), "number": dice.choice([-1, 1e9, 10**30, "x", None, True])}).encode() + b"\n"
    )
    place = dice.randrange(len(data))
    flipped = data[:place] + bytes([data[place] ^ 1 << dice.randrange(8)]) + data[place + 1 :]
    junk = dice.choice([b"[]\n", b"null\n", b"\xff\xfe\n", b"{" * 50_000 + b"\n", b"\n", b"\0" * 99])
    return dice.choice(
        [cut, cut, cut, cut + dice.choice(whole), data + data, other + cut, number + cut, flipped, junk + cut]
    )


@pytest.mark.parametrize("shards", [0, 5])
def test_a_manifest_damaged_at_any_byte_ends_with_every_row_once(
    tmp_path: Path, whole: dict[int, Path], shards: int
) -> None:
    dice, out, original = random.Random(shards), tmp_path / "out", whole[shards] / "out"
    expected = {path.relative_to(original): path.read_bytes() for path in original.glob("*/*")}
    for turn in range(150):
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(original, out)
        manifest = damaged((original / "manifest.jsonl").read_bytes(), dice)
        (out / "manifest.jsonl").unlink()
        killed = turn % 2
        (out / "parts").mkdir()
        (out / ("parts/manifest-1.jsonl" if killed else "manifest.jsonl")).write_bytes(manifest)
        go_on(spec(tmp_path, WORDS, shards=shards))
        assert sorted(line["number"] for line in lines(tmp_path)) == list(range(COUNT)), turn
        folder = Disk(out)
        assert all(folder.holds(line) for line in lines(tmp_path)), turn
        if not shards:
            assert {path.relative_to(out): path.read_bytes() for path in out.glob("*/*")} == expected, turn
        assert len(folder.names("shards")) == len({line["file"] for line in lines(tmp_path)}) * bool(shards), turn


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[:-20], "manifest.jsonl: found 1 lines that are torn; left out"),
        (
            lambda data: data + data[: data.index(b"\n") + 1],
            "found 1 lines that were there already; left out",
        ),
        (
            lambda data: data.replace(b'"run": "', b'"run": "x', 1),
            "found 1 lines of another run; left out",
        ),
        (lambda data: data.replace(b'"number": 0', b'"number": 99999999999'), "found 1 lines that are torn"),
    ],
)
def test_what_was_repaired_is_said_and_stands_in_the_report(
    tmp_path: Path, damage: Callable[[bytes], bytes], said: str
) -> None:
    Job(spec(tmp_path), make=paint).run()
    manifest = tmp_path / "out" / "manifest.jsonl"
    manifest.write_bytes(damage(manifest.read_bytes()))
    report = Job(spec(tmp_path), make=paint).run()
    assert report is not None
    assert said in "\n".join(report.notes)
    assert sorted(line["number"] for line in lines(tmp_path)) == list(range(5))
    again = Job(spec(tmp_path), make=paint).run()
    assert again is not None
    assert not again.notes


def test_terms_that_are_no_terms_are_one_sentence_and_a_torn_report_is_written_again(tmp_path: Path) -> None:
    Job(spec(tmp_path), make=paint).run()
    for torn in (b"", b"[]", b'{"complete": tr', b"\xff", b"3"):
        (tmp_path / "out" / "report.json").write_bytes(torn)
        Job(spec(tmp_path), make=paint).run()
        assert json.loads((tmp_path / "out" / "report.json").read_text())["complete"] is True
    for torn in (b"[]", b"", b"{", b"\xff\xfe", b"[" * 50_000):
        (tmp_path / "out" / "batch.json").write_bytes(torn)
        with pytest.raises(
            BadFile, match=r"batch.json is not what ditstack wrote, .*; put the file back, or name another"
        ):
            Job(spec(tmp_path), make=paint).run()


def test_a_prompts_file_that_grows_while_the_run_goes_on_adds_no_row(tmp_path: Path) -> None:
    def growing(items: Sequence[Item]) -> Pictures:
        with (tmp_path / "prompts.txt").open("a") as file:
            file.write("more\n")
        return paint(items)

    report = Job(spec(tmp_path), make=growing).run()
    assert report is not None
    assert (report.complete, report.pictures) == (True, 5)
    with pytest.raises(BadFile, match="begun with another prompts file"):
        Job(as_it_is(tmp_path), make=paint).run()


def as_it_is(home: Path) -> Any:
    """The spec on the prompts file as it is now."""
    return spec(home, (home / "prompts.txt").read_text())


def test_a_picture_that_changes_while_the_run_goes_on_fails_alone(tmp_path: Path) -> None:
    from PIL import Image

    pictures = tmp_path / "in"
    pictures.mkdir()
    for place in range(3):
        Image.new("RGB", (20, 20), (90 * place, 40, 0)).save(pictures / f"p{place}.png")
    one = spec(tmp_path, prompts=pictures, prompt="x", batch_size=1)
    one.begin()
    (pictures / "p1.png").write_bytes(b"another")
    (pictures / "p9.png").write_bytes(b"new")
    report = Job(one, make=paint).run()
    assert report is not None
    assert [line["id"] for line in lines(tmp_path)] == ["p0", "p2"]
    assert [line["error"] for line in lines(tmp_path, "errors.jsonl")] == [
        "image: p1.png changed while the run went on"
    ]


def test_a_folder_that_is_held_refuses_a_second_run_until_its_process_is_killed(tmp_path: Path) -> None:
    go_on(spec(tmp_path))
    (tmp_path / "out" / "parts").mkdir(exist_ok=True)
    hold = "import sys, time, filelock; "
    hold += "lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print('held', flush=True); time.sleep(99)"
    lock = str(tmp_path / "out" / "parts" / "lock-0")
    with subprocess.Popen([sys.executable, "-c", hold, lock], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(Unfinished, match="another process is writing to"):
            spec(tmp_path).begin()
        other.kill()
        other.wait()
        go_on(spec(tmp_path))


def test_what_is_not_ours_is_left_alone_through_every_start(tmp_path: Path) -> None:
    go_on(spec(tmp_path, shards=2))
    out = tmp_path / "out"
    mine = {"pictures/.DS_Store", "pictures/.ipynb_checkpoints/x.png", "shards/mine.tar", "shards/00000009.tar",
            "shards/.keep", "parts/notes.txt", ".git/config", "notes.md", "pictures/.000001.png.abc"}  # fmt: skip
    for name in mine:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(name)
    (out / "manifest.jsonl").write_bytes((out / "manifest.jsonl").read_bytes()[:-30])
    for _ in range(2):
        go_on(spec(tmp_path, shards=2))
        assert {name: (out / name).read_text() for name in mine} == {name: name for name in mine}
    assert sorted(line["number"] for line in lines(tmp_path)) == list(range(5))
    ours = [f"shards/{number:08d}.tar" for number in range(3)]
    assert sorted({line["file"] for line in lines(tmp_path)}) == ours


def test_a_finished_picture_that_became_a_pipe_or_a_folder_answers_at_once(tmp_path: Path) -> None:
    go_on(spec(tmp_path))
    before, picture = files(tmp_path), tmp_path / "out" / "pictures" / "000002.png"
    picture.unlink()
    os.mkfifo(picture)
    started = time.process_time()
    assert go_on(spec(tmp_path)) == ["1 pictures or shards were missing or torn; they are made again"]
    assert files(tmp_path) == before
    assert time.process_time() - started < 5
    picture.unlink()
    picture.mkdir()
    with pytest.raises(BadFile, match=r"000002.png cannot be written: Is a directory"):
        go_on(spec(tmp_path))


def test_shards_are_numbered_without_gaps_after_torn_ones_are_gone(tmp_path: Path) -> None:
    words = "".join(f"{place}\n" for place in range(9))
    go_on(spec(tmp_path, words, shards=2))
    for name in ("00000001.tar", "00000004.tar"):
        (tmp_path / "out" / "shards" / name).unlink()
    go_on(spec(tmp_path, words, shards=2))
    names = [path.name for path in sorted((tmp_path / "out" / "shards").iterdir())]
    assert names == [f"{number:08d}.tar" for number in range(len(names))]
    assert sorted(line["number"] for line in lines(tmp_path)) == list(range(9))
    assert all(Disk(tmp_path / "out").holds(line) for line in lines(tmp_path))
