"""Files and folders appear whole or not at all."""

from pathlib import Path

import pytest

from ditstack.errors import BadFile
from ditstack.files import folder_atomically, free_folder, write_atomically


def test_a_file_that_cannot_be_finished_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically(tmp_path / "f", b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(BadFile, match="No space left on device"):
        write_atomically(tmp_path / "f", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("f", b"old")]


def test_a_folder_appears_at_the_end_and_vanishes_after_an_error(tmp_path: Path) -> None:
    with folder_atomically(tmp_path / "a") as folder:
        (folder / "x").write_text("1")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a" / "x").read_text() == "1"

    def fail() -> None:
        with folder_atomically(tmp_path / "b") as folder:
            (folder / "x").write_text("1")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_is_there_is_refused_before_the_work_and_replaced_on_request(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine").write_text("1")
    with pytest.raises(BadFile, match="holds something already"), folder_atomically(tmp_path / "a"):
        pytest.fail("the work began")
    with folder_atomically(tmp_path / "a", overwrite=True) as folder:
        (folder / "new").write_text("2")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["new"]


def test_a_free_folder_counts_up(tmp_path: Path) -> None:
    assert free_folder(tmp_path / "a") == tmp_path / "a"
    (tmp_path / "a").mkdir()
    (tmp_path / "a-2").mkdir()
    assert free_folder(tmp_path / "a") == tmp_path / "a-3"
