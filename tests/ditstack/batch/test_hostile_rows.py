"""Hostile rows: nothing in a row ends a batch; it goes to errors.jsonl with its reason."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ditstack.assembly.sample import Pictures
from ditstack.batch.rows.batches import Item
from ditstack.batch.run import Job
from ditstack.batch.spec import BatchSpec
from ditstack.errors import BadFile, BadPipeline
from stub_batch import RECIPE, go_on, lines, paint, spec

DEEP = json.loads("[" * 900 + "]" * 900)
HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "an id that is half a character": ({"id": "\ud800", "prompt": "x"}, "half a character (a lone surrogate)"),
    "a prompt with half a character": ({"prompt": "a \udcff b"}, "unable to parse raw data as a unicode string"),
    "an image of a name too long": ({"prompt": "x", "image": "n" * 300 + ".png"}, "image: there is no file"),
    "an image with a zero byte": ({"prompt": "x", "image": "a\0b.png"}, "image: there is no file"),
    "an image that is a pipe": ({"prompt": "x", "image": "pipe.png"}, "it is a pipe; wanted a plain file"),
    "an image that is a folder": ({"prompt": "x", "image": "."}, "it is a folder; wanted a plain file"),
    "an image that is a device": ({"prompt": "x", "image": "/dev/zero"}, "it is a device; wanted a plain file"),
    "an image at a URL of nobody": ({"prompt": "x", "image": "nobody://x/y.png"}, "found the scheme 'nobody'"),
    "a prompt that is a book": ({"prompt": "x" * 100_000}, "at most 5000 characters"),
    "a prompt of ten megabytes": ({"prompt": "x" * 10_000_000}, "longer than 1,048,576 bytes"),
    "two thousand columns": (
        {"prompt": "x", **{f"c{i}": 1 for i in range(2_000)}},
        "found 2,001 columns; wanted at most",
    ),
    "a column of a megabyte": ({"prompt": "x", "c": "\u00fc" * 300_000}, "columns to carry through of 600,0"),
    "a list where a text belongs": ({"prompt": ["x"]}, "prompt: found"),
    "a number too large": ({"prompt": "x", "seed": 10**400}, "seed: found"),
    "a column that is called as a method": (
        {"prompt": " ", "model_dump": 3, "self": 1},
        "no prompt, class_label or image",
    ),
}


def test_every_hostile_row_is_named_with_its_reason_and_the_others_are_made(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    rows = [row for row, _ in HOSTILE.values()]
    data = "".join(f"{json.dumps(row)}\n" for row in [*rows, {"id": "good", "prompt": "x", "deep": DEEP}])
    text = data.replace("\\u00fc", "\u00fc")
    go_on(spec(tmp_path, text, "p.jsonl"))
    assert [line["id"] for line in lines(tmp_path)] == ["good"]
    said = {line["line"]: line["error"] for line in lines(tmp_path, "errors.jsonl")}
    assert len(said) == len(HOSTILE)
    for number, (name, (_, reason)) in enumerate(HOSTILE.items(), 1):
        assert reason in said[number], name
        assert len(said[number]) < 1_000, name


def test_a_table_of_200_000_columns_or_cells_is_answered_at_once(tmp_path: Path) -> None:
    for count, said in (
        (200_000, "header is longer than 1,048,576 bytes"),
        (90_000, "has 90,001 columns; wanted at most"),
    ):
        header = ",".join(["prompt", *(f"c{place}" for place in range(count))])
        with pytest.raises(BadFile, match=said):
            spec(tmp_path, f"{header}\nx\n", "wide.csv").begin()
    text = f"prompt,tag\na,b\n{',' * 200_000}\nx,{'y' * 10_000_000}\nc,d\n"
    go_on(spec(tmp_path, text, "p.csv"))
    assert [line["prompt"] for line in lines(tmp_path)] == ["a", "c"]
    said = {line["line"]: line["error"] for line in lines(tmp_path, "errors.jsonl")}
    assert said == {
        3: "found 200001 cells for 2 columns; quote a cell that holds a comma",
        4: "longer than 1,048,576 bytes",
    }


@pytest.mark.parametrize("name", ["/dev/zero", "pipe.txt"])
def test_a_prompts_file_that_is_no_plain_file_is_refused_at_once(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    prompts = tmp_path / name if name == "pipe.txt" else tmp_path / "zero.txt"
    if name == "/dev/zero":
        prompts.symlink_to(name)
    with pytest.raises(BadFile, match=r"cannot be read: it is a (pipe|device); wanted a plain file"):
        BatchSpec(RECIPE, prompts, tmp_path / "out").begin()
    assert not (tmp_path / "out").exists()


def test_a_picture_that_becomes_a_pipe_between_reading_and_sampling_fails_alone(tmp_path: Path) -> None:
    from ditstack.batch.generate import _open

    (tmp_path / "in").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "in" / "a.png")
    Image.new("RGB", (20, 20)).save(tmp_path / "in" / "b.png")

    def reading(items: Sequence[Item]) -> Pictures:
        (tmp_path / "in" / "b.png").unlink(missing_ok=True)
        if not (tmp_path / "in" / "b.png").exists():
            os.mkfifo(tmp_path / "in" / "b.png")
        for item in items:
            _open(item.row.image, (16, 16))
        return paint(items)

    text = "id,prompt,image\na,x,in/a.png\nb,x,in/b.png\n"
    report = Job(spec(tmp_path, text, "p.csv", batch_size=2), make=reading).run()
    assert report is not None
    assert (report.pictures, report.failures) == (1, 1)
    assert "it is a pipe" in lines(tmp_path, "errors.jsonl")[0]["error"]


def test_ten_bad_rows_in_front_end_no_run_where_a_plain_prompt_works(tmp_path: Path) -> None:
    def picky(items: Sequence[Item]) -> Pictures:
        if any(item.row.prompt == "bad" for item in items):
            raise BadPipeline("no such word")
        return paint(items)

    report = Job(spec(tmp_path, "bad\n" * 14 + "good\n", batch_size=1), make=picky).run()
    assert report is not None
    assert (report.pictures, report.failures) == (1, 14)


def test_a_picture_that_its_format_cannot_hold_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ditstack.batch import writer

    def encode(picture: Any, format: str, note: dict[str, Any], fps: int) -> bytes:
        if note["id"] == "000002":
            raise ValueError("EXIF data is too long")
        return b"picture"

    monkeypatch.setattr(writer, "encode", encode)
    go_on(spec(tmp_path))
    assert [line["id"] for line in lines(tmp_path)] == ["000001", "000003", "000004", "000005"]
    assert lines(tmp_path, "errors.jsonl")[0]["error"] == "the png cannot be written: EXIF data is too long"
