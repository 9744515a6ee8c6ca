"""A batch writes into a folder of its own, by the rule of every command, and its books name no place of the machine."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ditstack.batch.encode import read_note
from ditstack.batch.store.disk import Disk
from ditstack.errors import BadFile
from ditstack.folders import folder_atomically
from ditstack.marks import MARK, Mark
from stub_batch import files, go_on, lines, spec


def test_the_working_folder_home_and_all_above_them_take_no_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "home" / "here"
    here.mkdir(parents=True)
    (tmp_path / "link").symlink_to(here)
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(here.parent))
    for name in (".", "..", "/", "~", "../..", here, tmp_path / "link", f"file://{here}"):
        with pytest.raises(BadFile, match="name a folder of its own"):
            spec(tmp_path, folder=name)
    assert not [*here.iterdir()]


def test_a_home_is_expanded_and_that_of_nobody_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    go_on(spec(tmp_path, folder="~/made"))
    assert len([*(tmp_path / "made" / "pictures").iterdir()]) == 5
    with pytest.raises(BadFile, match="there is no user of that name"):
        spec(tmp_path, folder="~nobody-of-this-name/out")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
    with pytest.raises(BadFile, match="no home is known"):
        spec(tmp_path, folder="~/made")


def test_a_folder_of_others_is_refused_and_one_of_a_batch_by_every_other_command(tmp_path: Path) -> None:
    for name in ("notes.txt", "parts/prompts.txt", "parts/manifest-2024.jsonl", "pictures/a.png"):
        own = tmp_path / name.replace("/", "-")
        (own / name).parent.mkdir(parents=True)
        (own / name).write_text("keep me")
        with pytest.raises(BadFile, match="that ditstack did not write"):
            spec(tmp_path, folder=own).begin()
        assert [path.name for path in own.rglob("*") if path.is_file()] == [Path(name).name]
    go_on(spec(tmp_path))
    assert Mark.read(tmp_path / "out") == Mark("batch")
    with pytest.raises(BadFile, match="of `ditstack batch`"), folder_atomically(tmp_path / "out", overwrite=True):
        pytest.fail("the work began")


def test_a_folder_that_was_begun_before_there_were_marks_is_gone_on_with(tmp_path: Path) -> None:
    go_on(spec(tmp_path))
    (tmp_path / "out" / MARK).unlink()
    (tmp_path / "out" / "pictures" / "000002.png").unlink()
    go_on(spec(tmp_path))
    assert Mark.read(tmp_path / "out") == Mark("batch")
    assert len(files(tmp_path)) == 5


def test_what_the_user_keeps_among_the_parts_stays_whatever_its_name(tmp_path: Path) -> None:
    go_on(spec(tmp_path))
    mine = ("prompts.md", "manifest-old.jsonl", "errors-mine.jsonl", "totals-2024.txt", "lock-smith", "manifest-.jsonl")
    (tmp_path / "out" / "parts").mkdir()
    for name in mine:
        (tmp_path / "out" / "parts" / name).write_text(name)
    assert go_on(spec(tmp_path)) == []
    assert {path.name: path.read_text() for path in (tmp_path / "out" / "parts").iterdir()} == {
        one: one for one in mine
    }


def started_from(home: Path, **more: Any) -> list[dict[str, Any]]:
    """The lines of a batch whose rows start from pictures: below the prompts, hidden, beside them, elsewhere."""
    (home / "in" / "deep").mkdir(parents=True)
    (home / "in" / ".old").mkdir()
    (home / "input").mkdir()
    named = ["deep/a.png", ".old/a.png", "../input/a.png", str(home / "input" / "b.png")]
    for name in named:
        Image.new("RGB", (16, 16)).save(home / "in" / name)
    asked = [{"id": f"r{place}", "prompt": "x", "image": name} for place, name in enumerate(named)]
    rows = "".join(f"{json.dumps(row)}\n" for row in asked)
    go_on(spec(home, rows, "in/p.jsonl", **more))
    return lines(home)


SEEN = ["../in/deep/a.png", "../in/.old/a.png", "../input/a.png", "../input/b.png"]


def test_the_manifest_names_pictures_from_its_own_folder_and_what_travels_by_name(tmp_path: Path) -> None:
    made = started_from(tmp_path)
    assert [line["image"] for line in made] == SEEN
    assert all((tmp_path / "out" / line["image"]).is_file() for line in made)
    notes = [read_note(data)["image"] for data in files(tmp_path).values()]
    assert notes == ["deep/a.png", ".old/a.png", "a.png", "b.png"]


def test_shards_name_no_place(tmp_path: Path) -> None:
    assert [line["image"] for line in started_from(tmp_path, shards=4)] == SEEN
    data = (tmp_path / "out" / "shards" / "00000000.tar").read_bytes()
    assert str(tmp_path).encode() not in data
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        inside = [json.loads(tar.extractfile(one).read()) for one in tar if one.name.endswith(".json")]  # pyright: ignore[reportOptionalMemberAccess]
    assert [one["image"] for one in inside] == ["deep/a.png", ".old/a.png", "a.png", "b.png"]


def test_a_manifest_with_whole_paths_is_still_read(tmp_path: Path) -> None:
    started_from(tmp_path)
    manifest = tmp_path / "out" / "manifest.jsonl"
    old = [{**line, "image": str(tmp_path / "input" / "a.png")} for line in lines(tmp_path)]
    manifest.write_text("".join(f"{json.dumps(line)}\n" for line in old))
    assert go_on(spec(tmp_path, (tmp_path / "in" / "p.jsonl").read_text(), "in/p.jsonl")) == []
    assert lines(tmp_path) == old
    assert all(Disk(tmp_path / "out").holds(line) for line in old)
