"""Files appear whole or not at all; what is read is a plain file of a bounded size, its text read in one way."""

import os
import socket
from pathlib import Path

import pytest

from ditstack import files
from ditstack.errors import BadFile
from ditstack.files import free_folder, read_prompts, write_atomically


def test_a_file_that_cannot_be_finished_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically(tmp_path / "f", b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(BadFile, match="No space left on device"):
        write_atomically(tmp_path / "f", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("f", b"old")]


def test_a_free_folder_counts_up(tmp_path: Path) -> None:
    assert free_folder(tmp_path / "a") == tmp_path / "a"
    (tmp_path / "a").mkdir()
    (tmp_path / "a-2").mkdir()
    assert free_folder(tmp_path / "a") == tmp_path / "a-3"


def test_the_umask_of_the_user_rules_what_others_may_read(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_atomically(tmp_path / "f", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o600


def test_a_prompts_file_is_split_at_line_ends_alone_and_its_mark_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_bytes("\ufeffa red\u2028circle\r\n\n  a\x0bblue\x85star \na last".encode())
    assert read_prompts(path) == ["a red\u2028circle", "a\x0bblue\x85star", "a last"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"caf\xe9", "line 1 is not UTF-8 text"),
        (b"\n \n", "holds no prompt"),
        (b"x" * 6_000, "prompt 1 has 6,000 characters; wanted at most 5,000"),
        (b"x" * 10_000_000, "line 1 is longer than 1,048,576 bytes"),
        ("a".encode("utf-16"), "line 1 is not UTF-8 text"),
    ],
)
def test_prompts_that_cannot_be_are_refused_by_line(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "p.txt").write_bytes(content)
    with pytest.raises(BadFile, match=reason):
        read_prompts(tmp_path / "p.txt")


def test_only_plain_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        before = Path.cwd()
        os.chdir(tmp_path)
        try:
            server.bind("socket")
        finally:
            os.chdir(before)
        for path, kind in ((tmp_path / "pipe", "a pipe"), (Path("/dev/zero"), "a device"), (tmp_path, "a folder")):
            with pytest.raises(BadFile, match=f"it is {kind}; wanted a plain file"):
                read_prompts(path)
        with pytest.raises(BadFile, match="it is a socket"):
            files.read_text(tmp_path / "socket")
    for name in ("n" * 300, "zero\0byte", "missing"):
        with pytest.raises(BadFile, match="cannot be read"):
            files.read_text(tmp_path / name)


def test_a_file_larger_than_its_bound_is_refused_with_the_bound(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 11)
    assert files.read_text(tmp_path / "f", 11) == "x" * 11
    with pytest.raises(BadFile, match="larger than 10 bytes"):
        files.read_text(tmp_path / "f", 10)


def test_a_torn_json_file_is_one_sentence(tmp_path: Path) -> None:
    for text in ('{"a": 1', "[" * 100_000, ""):
        (tmp_path / "f").write_text(text)
        with pytest.raises(BadFile, match="is not whole JSON"):
            files.read_json(tmp_path / "f")


def test_a_home_that_nobody_knows_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("DITSTACK_HOME")
    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(BadFile, match="set HOME, or DITSTACK_HOME"):
        files.home()
    with pytest.raises(BadFile, match="there is no user of that name"):
        files.expand("~nobody-of-this-name/x")
