"""Folders: a command writes into its own, and what others put there is left alone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ditstack.errors import BadFile, Unfinished
from ditstack.folders import folder_atomically, own_folder
from ditstack.marks import MARK, Mark, is_signed, require_own_file, signed


def everything(folder: Path) -> dict[str, object]:
    """Every name below a folder with its bytes, or where a link leads."""
    return {
        str(one.relative_to(folder)): os.readlink(one) if one.is_symlink() else one.read_bytes() if one.is_file() else 0
        for one in folder.rglob("*")
    }


def write(folder: Path, overwrite: bool = False, **files: str) -> None:
    with folder_atomically(folder, overwrite) as inner:
        for name, text in files.items():
            (inner / name).parent.mkdir(exist_ok=True)
            (inner / name).write_text(text)


@contextmanager
def within(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


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
    assert Mark.read(tmp_path / "a") is not None


def test_what_ditstack_did_not_write_is_refused_before_the_work_whatever_is_asked(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine").write_text("1")
    (tmp_path / "file").write_text("2")
    (tmp_path / "link").symlink_to("a")
    before = everything(tmp_path)
    for name in ("a", "file", "link", "a/mine"):
        for overwrite in (False, True):
            with pytest.raises(BadFile), folder_atomically(tmp_path / name, overwrite):
                pytest.fail("the work began")
    assert everything(tmp_path) == before


def test_a_link_to_nothing_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(BadFile, match="is a link to nothing"):
        write(tmp_path / "link", x="1")
    assert everything(tmp_path) == {"link": str(tmp_path / "nowhere")}


def test_the_working_folder_home_a_root_and_all_above_them_are_never_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home" / "deep").mkdir(parents=True)
    (tmp_path / "here" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "deep"))
    with within(tmp_path / "here" / "deep"):
        for name in (".", "..", "/", "~", "../../home", str(tmp_path), str(tmp_path / "link"), "../deep", "./x/.."):
            for overwrite in (False, True):
                with pytest.raises(BadFile, match="name a folder of its own"):
                    write(Path(name), overwrite, x="1")
    assert everything(tmp_path / "here") == {"deep": 0}


def test_what_the_same_command_wrote_is_replaced_on_request_and_the_files_of_others_stay(tmp_path: Path) -> None:
    write(tmp_path / "a", x="1", y="1")
    (tmp_path / "a" / "mine").write_text("keep me")
    with pytest.raises(BadFile, match=r"holds something already.*or add --overwrite"):
        write(tmp_path / "a", x="2")
    write(tmp_path / "a", True, x="2", z="2")
    found = everything(tmp_path / "a")
    assert (found.pop("x"), found.pop("z"), found.pop("mine")) == (b"2", b"2", b"keep me")
    assert list(found) == [MARK]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_that_the_user_changed_is_his_and_the_new_ones_go_elsewhere(tmp_path: Path) -> None:
    write(tmp_path / "a", x="1", y="1")
    (tmp_path / "a" / "x").write_text("edited")
    with pytest.raises(BadFile, match=r"was given x by somebody else meanwhile.*what was made is in .*a-2"):
        write(tmp_path / "a", True, x="2", y="2")
    assert (tmp_path / "a" / "x").read_text() == "edited"
    assert (tmp_path / "a" / "y").read_text() == "1"
    assert (tmp_path / "a-2" / "x").read_text() == "2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a-2"]


def test_files_that_appear_during_the_work_are_left_alone(tmp_path: Path) -> None:
    with folder_atomically(tmp_path / "a") as folder:
        (folder / "x").write_text("1")
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "mine").write_text("keep me")
    assert {"x": b"1", "mine": b"keep me"}.items() <= everything(tmp_path / "a").items()


def test_the_second_writer_of_a_folder_is_refused_at_its_start(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    with folder_atomically(tmp_path / "a") as folder:
        (folder / "x").write_text("1")
        for name in ("a", "link", "./b/../a"):
            with pytest.raises(Unfinished, match="another process is writing"), folder_atomically(tmp_path / name):
                pytest.fail("the work began")
    assert (tmp_path / "a" / "x").read_text() == "1"
    with own_folder(tmp_path / "m", "matrix"), pytest.raises(Unfinished), own_folder(tmp_path / "m", "matrix"):
        pytest.fail("the work began")


def test_a_kill_while_files_are_replaced_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a", x="1", y="1", z="1")
    real, left = os.replace, [0]

    def killed(source: Path, target: Path) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        real(source, target)

    for moves in range(9):
        left[0] = moves
        monkeypatch.setattr("os.replace", killed)
        # a killed process tidies nothing up
        monkeypatch.setattr("ditstack.folders._undo", lambda work, folder: None)
        with pytest.raises((KeyboardInterrupt, BadFile)):
            write(tmp_path / "a", True, x="2", y="2", z="2")
        monkeypatch.undo()
        aside = tmp_path / ".a.ditstack"
        found = [one.read_text() for one in (*tmp_path.glob("a/[xyz]"), *aside.glob("old/[xyz]"))]
        assert found.count("1") == 3 or len([*tmp_path.glob("a/[xyz]")]) == 3, moves
        (aside / "lock").touch()
        write(tmp_path / "a", True, x="1", y="1", z="1")
        assert sorted(everything(tmp_path / "a")) == [MARK, "x", "y", "z"], moves
        assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_lies_where_the_hidden_folder_would_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / ".a.ditstack").mkdir()
    (tmp_path / ".a.ditstack" / "mine").write_text("keep me")
    with pytest.raises(BadFile, match="is in the way"):
        write(tmp_path / "a", x="1")
    assert everything(tmp_path) == {".a.ditstack": 0, ".a.ditstack/mine": b"keep me"}


def test_a_folder_that_is_gone_on_with_belongs_to_one_command(tmp_path: Path) -> None:
    with own_folder(tmp_path / "m", "matrix") as folder:
        (folder / "x").write_text("1")
    with own_folder(tmp_path / "m", "matrix") as folder:
        assert (folder / "x").read_text() == "1"
    with pytest.raises(BadFile, match="of `ditstack matrix`"), own_folder(tmp_path / "m", "batch"):
        pytest.fail("the work began")
    with pytest.raises(BadFile, match="of `ditstack matrix`"):
        write(tmp_path / "m", True, x="2")


def test_a_name_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    for name in ("n" * 256, "n" * 5000, "\0", "~nobody-of-this-name/out"):
        with pytest.raises(BadFile):
            write(tmp_path / name if "~" not in name else Path(name), x="1")
    write(tmp_path / ("n" * 250), x="1")
    assert [path.name for path in tmp_path.iterdir()] == ["n" * 250]


def test_folders_have_the_rights_that_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write(tmp_path / "a", x="1")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o077 for name in ("a", "a/x", f"a/{MARK}")] == [0, 0, 0]


def test_a_file_of_somebody_else_is_never_replaced(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.yaml", tmp_path / "theirs.yaml"
    ours.write_text(signed("extends: tiny\n"))
    theirs.write_text("extends: tiny\n")
    (tmp_path / "dangling").symlink_to("nowhere")
    require_own_file(ours, is_signed)
    require_own_file(tmp_path / "new", is_signed)
    ours_edited = tmp_path / "edited.yaml"
    ours_edited.write_text(ours.read_text() + "seed: 3\n")
    for path in (theirs, ours_edited, tmp_path, tmp_path / "dangling"):
        with pytest.raises(BadFile, match="name another"):
            require_own_file(path, is_signed)
