"""Rows: every kind of prompts file, and every way in which one can be bad."""

import io
import json
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from ditstack.batch.rows.batches import cut, items_of, seed_of, share
from ditstack.batch.rows.check import BadRow, GoodRow, read_rows
from ditstack.batch.rows.sources import Source, spool
from ditstack.errors import BadFile


def read(path: Path, text: str | bytes | None = None) -> list[GoodRow | BadRow]:
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(read_rows(Source.find(path)))


def good(path: Path, text: str | bytes) -> list[GoodRow]:
    found = [row for row in read(path, text) if isinstance(row, GoodRow)]
    assert len(found) == len(read(path))
    return found


def why(path: Path, text: str | bytes) -> list[tuple[int, str]]:
    return [(row.line, row.why) for row in read(path, text) if isinstance(row, BadRow)]


def test_a_text_file_has_a_prompt_a_line_and_its_ids_count_rows(tmp_path: Path) -> None:
    rows = good(tmp_path / "a.txt", "\ufeffone\n\n  two  \n")
    assert [(one.line, one.row.id, one.row.prompt) for one in rows] == [(1, "000001", "one"), (3, "000002", "two")]


def test_csv_columns_are_read_by_name_and_others_are_carried_through(tmp_path: Path) -> None:
    header = "id,prompt,seed,width,height,steps,guidance,num_images,note\n"
    first, second = good(tmp_path / "a.csv", header + 'x,"a, b",7,64,32,4,2.5,3,"over\ntwo lines"\ny,c,,,,,,,\n')
    assert first.row.model_dump(exclude_none=True) == {
        "id": "x", "prompt": "a, b", "seed": 7, "width": 64, "height": 32, "steps": 4, "guidance": 2.5,
        "num_images": 3, "note": "over\ntwo lines",
    }  # fmt: skip
    assert (second.line, second.row.seed, second.row.num_images) == (4, None, 1)


def test_jsonl_and_parquet_give_the_same_rows(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = [{"id": 7, "prompt": "a", "seed": 3, "tag": "t"}, {"id": 8, "prompt": "b", "seed": None, "tag": None}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    text = "\n".join(json.dumps(row) for row in rows)
    assert [one.row for one in good(tmp_path / "a.jsonl", text)] == [
        one.row for one in read(tmp_path / "a.parquet") if isinstance(one, GoodRow)
    ]


def test_a_folder_of_pictures_asks_for_each_with_its_own_words_and_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (70, 40)).save(tmp_path / "b.png")
    Image.new("RGB", (32, 32)).save(tmp_path / "a.jpg")
    (tmp_path / "a.txt").write_text("a dog")
    (tmp_path / "torn.png").write_bytes(b"no picture")
    (tmp_path / "vast.png").write_bytes(header_of_a_png(30_000, 30_000))
    monkeypatch.chdir(tmp_path.parent)
    a, b, torn, vast = read_rows(Source.find(Path(tmp_path.name)), prompt="any", own_size=True)
    assert isinstance(a, GoodRow)
    assert isinstance(b, GoodRow)
    assert (a.row.id, a.row.prompt, a.row.width) == ("a", "a dog", 32)
    assert (b.row.id, b.row.prompt, b.row.width, b.row.height) == ("b", "any", 64, 32)
    assert isinstance(torn, BadRow)
    assert "cannot identify image file" in torn.why
    assert isinstance(vast, BadRow)
    assert "Image size (900000000 pixels) exceeds limit" in vast.why


def header_of_a_png(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body)) + b"\0\0\0\0IDAT"


def test_standard_input_is_kept_and_its_kind_is_seen(tmp_path: Path) -> None:
    assert spool(io.BytesIO(b'\n {"prompt": "a"}\n'), tmp_path / "in") == ".jsonl"
    assert spool(io.BytesIO(b"a\nb\n"), tmp_path / "in") == ".txt"
    assert Source.find(tmp_path / "in", ".txt").rows == 2


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.txt", "", "is empty; wanted at least one prompt a line"),
        ("a.csv", "prompt\n", "is empty; wanted at least a row"),
        ("a.csv", "id,promt\n1,x\n", "has no column 'prompt'; found 'id', 'promt'; or give --prompt"),
        ("a.csv", "prompt,note,prompt\na,b,c\n", "has two columns 'prompt'"),
        ("a.xml", "x", "is of an unknown kind"),
        ("a.parquet", "x", "is not a whole parquet file"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_a_sentence(
    tmp_path: Path, name: str, text: str, sentence: str
) -> None:
    with pytest.raises(BadFile, match=sentence):
        read(tmp_path / name, text)


def test_a_missing_file_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="cannot be read: No such file"):
        Source.find(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        ('"steps": 0', "steps: found '0'; input should be greater than or equal to 1"),
        ('"seed": "many"', "seed: found 'many'; input should be a valid integer"),
        ('"prompt": 5', "prompt: found '5'; input should be a valid string"),
        ('"id": "../x"', "an id becomes a file name"),
        ('"id": ".."', "an id becomes a file name"),
        ('"id": "/etc/x"', "an id becomes a file name"),
        ('"id": "' + "x" * 200 + '"', "at most 150 bytes"),
        ('"width": 1000000, "height": 64', "width: found '1000000'; input should be less than"),
        ('"width": 16384, "height": 16384', "more than 16777216 pixels"),
        ('"width": 64', "width and height go together"),
        ('"prompt": " "', "no prompt, class_label or image"),
        ('"guidance": NaN', ""),
        ('"guidance": Infinity', "guidance: found 'inf'; input should be a finite number"),
        ('"num_images": 0', "num_images: found '0'"),
        ('"prompt": "\\ud800"', "unable to parse raw data as a unicode string"),
        ('"image": "none.png"', "image: there is no file"),
    ],
)
def test_a_bad_row_is_named_by_its_line_and_the_others_go_on(tmp_path: Path, cells: str, sentence: str) -> None:
    text = '{"prompt": "a"}\n{"prompt": "b", ' + cells + '}\n{"prompt": "c"}\n'
    found = why(tmp_path / "a.jsonl", text)
    assert len(read(tmp_path / "a.jsonl")) == 3
    if sentence:
        assert [line for line, _ in found] == [2]
        assert sentence in found[0][1]


def test_lines_that_are_not_text_json_or_a_row_are_named(tmp_path: Path) -> None:
    assert why(tmp_path / "a.txt", b"a\n\xff\xfe\nb\n") == [(2, "not UTF-8 text")]
    assert why(tmp_path / "a.csv", b"prompt\na\n\xff\nb\n") == [(3, "not UTF-8 text")]
    assert why(tmp_path / "a.txt", "a\nb\n".encode("utf-16"))[-1] == (3, "not UTF-8 text"), "every second byte is 0"
    assert why(tmp_path / "a.csv", "prompt\na\nb,c\n")[0][0] == 3
    assert why(tmp_path / "a.csv", 'prompt\na\n"b\nc\n') == [(3, "unexpected end of data; is a quote left open?")]
    lines = [line for line, _ in why(tmp_path / "a.jsonl", b'{"prompt": "a"}\n{\n[1]\n\xff\n{"prompt": "b"}\n')]
    assert lines == [2, 3, 4]


def test_an_id_is_taken_once_even_by_a_row_that_brought_none(tmp_path: Path) -> None:
    text = "id,prompt\nx,a\nx,b\n,c\n000003,d\n"
    assert why(tmp_path / "a.csv", text) == [
        (3, "id: 'x' was used in line 2 already"),
        (5, "id: '000003' was used in line 4 already"),
    ]


def test_on_a_disk_that_folds_case_ids_that_differ_only_by_case_are_one(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,prompt\nx,a\nX,b\n\u00e9,c\ne\u0301,d\n")
    found = Source.find(path)
    assert len([row for row in read_rows(found) if isinstance(row, GoodRow)]) == 4
    assert [row.line for row in read_rows(found, fold=True) if isinstance(row, BadRow)] == [3, 5]


def test_a_prompt_for_all_serves_a_table_without_that_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,seed\nx,1\ny,2\n")
    rows = list(read_rows(Source.find(tmp_path / "a.csv", subject=False), "a cat"))
    assert [(one.row.prompt, one.row.seed) for one in rows if isinstance(one, GoodRow)] == [("a cat", 1), ("a cat", 2)]


def test_a_seed_comes_from_the_run_and_the_id_unless_the_row_brings_one(tmp_path: Path) -> None:
    rows = good(tmp_path / "a.csv", "id,prompt,seed,num_images\nx,a,,2\ny,b,7,2\n")
    items = list(items_of(rows, 5))
    assert [item.seed for item in items] == [seed_of(5, "x"), seed_of(5, "x", 1), 7, 8]
    assert [item.name for item in items] == ["x", "x~2", "y", "y~2"]
    assert len({seed_of(5, "x"), seed_of(6, "x"), seed_of(5, "y"), seed_of(5, "x", 1)}) == 4


def test_the_pictures_of_one_row_have_seeds_of_their_own(tmp_path: Path) -> None:
    rows = good(tmp_path / "a.csv", "id,prompt,seed,num_images\nx,a,,40\ny,b,7,40\n")
    for name in ("x", "y"):
        assert len({item.seed for item in items_of(rows, 5) if item.row.id == name}) == 40


def test_batches_hold_one_kind_and_are_shared_by_all_processes_once(tmp_path: Path) -> None:
    lines = "".join(f"{i},p,{64 if i % 3 else 32},32,{4 + i % 2}\n" for i in range(50))
    rows = good(tmp_path / "a.csv", "id,prompt,width,height,steps\n" + lines)
    batches = list(cut(items_of(rows, 0), 4))
    assert all(len({item.kind for item in batch.items}) == 1 for batch in batches)
    assert sorted(item.number for batch in batches for item in batch.items) == list(range(50))
    done = bytearray(50)
    done[batches[0].items[0].number] = 1
    for item in batches[1].items:
        done[item.number] = 1
    shares = [list(share(cut(items_of(rows, 0), 4), done, rank, 3)) for rank in range(3)]
    names = sorted(item.number for one in shares for batch in one for item in batch.items)
    assert names == sorted(item.number for batch in [batches[0], *batches[2:]] for item in batch.items)


def test_rows_that_wait_for_their_kind_are_few(tmp_path: Path) -> None:
    lines = "".join(f"{i},p,{i / 7}\n" for i in range(1000))
    rows = good(tmp_path / "a.csv", "id,prompt,guidance\n" + lines)
    sizes = [len(batch) for batch in cut(items_of(rows, 0), 2)]
    assert sum(sizes) == 1000
