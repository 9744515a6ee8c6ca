"""Objects: a batch on a bucket: a real S3 server on this machine, and fsspec's memory."""

import json
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import fsspec
import pytest

from ditstack.assembly.sample import Pictures
from ditstack.batch.rows.batches import Item
from ditstack.batch.run import Job
from ditstack.batch.store.folder import folder_of
from ditstack.batch.store.objects import Objects
from ditstack.errors import BadFile, Unfinished
from s3 import bucket
from stub_batch import files, paint, spec

pytestmark = [
    pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
WORDS = "\n".join("abcdefghij")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with bucket() as url:
        yield url


@pytest.fixture(params=["s3", "memory"])
def place(request: pytest.FixtureRequest, s3: str) -> str:
    name = request.node.name.replace("[", "-").rstrip("]")
    return f"{s3 if request.param == 's3' else 'memory:/'}/{name}"


def pictures(place: str) -> dict[str, bytes]:
    folder = folder_of(place)
    return {name: folder.read(f"pictures/{name}") or b"" for name in folder.names("pictures")}


def numbers(place: str) -> list[int]:
    return sorted(json.loads(line)["number"] for line in folder_of(place).lines("manifest.jsonl"))


def test_a_bucket_holds_what_a_disk_would_through_stops(tmp_path: Path, place: str) -> None:
    Job(spec(tmp_path, WORDS), make=paint).run()

    def interrupted(items: Sequence[Item]) -> Pictures:
        if str(items[0].row.prompt) in "ceg":
            os.kill(os.getpid(), signal.SIGINT)
        return paint(items)

    report = None
    for _ in range(4):
        report = Job(spec(tmp_path, WORDS, folder=place), make=interrupted).run()
    assert report is not None
    assert (report.complete, report.pictures) == (True, 10)
    assert pictures(place) == files(tmp_path)
    assert numbers(place) == list(range(10))
    assert folder_of(place).names("parts") == []
    assert sorted(set(folder_of(place).names()) - {"parts"}) == [
        "batch.html", "batch.json", "manifest.jsonl", "pictures", "recipe.yaml", "report.json",
    ]  # fmt: skip


def test_a_kill_that_leaves_parts_and_lost_objects_is_made_good(tmp_path: Path, place: str) -> None:
    def killed(items: Sequence[Item]) -> Pictures:
        if items[0].row.prompt == "g":
            raise KeyboardInterrupt
        return paint(items)

    with pytest.raises((KeyboardInterrupt, Unfinished, SystemExit)):
        Job(spec(tmp_path, WORDS, folder=place), make=killed).run()
    folder = folder_of(place)
    assert any(name.startswith("manifest-0") for name in folder.names("parts"))
    folder.remove("pictures/000001.png")
    one = Job(spec(tmp_path, WORDS, folder=place), make=paint)
    report = one.run()
    assert report is not None
    assert (report.complete, report.pictures) == (True, 10)
    assert "1 pictures or shards were missing or torn; they are made again" in report.notes
    assert numbers(place) == list(range(10))


def test_shards_on_a_bucket_count_without_gaps(tmp_path: Path, place: str) -> None:
    for _ in range(2):
        report = Job(spec(tmp_path, WORDS, folder=place, shards=4), make=paint).run()
        assert report is not None
        assert report.pictures == 10
    assert folder_of(place).names("shards") == [f"{number:08d}.tar" for number in range(3)]


def test_prompts_and_pictures_to_start_from_may_lie_at_a_url(tmp_path: Path, place: str) -> None:
    from PIL import Image

    fs, path = fsspec.core.url_to_fs(place)
    Image.new("RGB", (20, 20), (90, 40, 0)).save(tmp_path / "p.png")
    fs.put_file(str(tmp_path / "p.png"), f"{path}/in/p.png")
    with fs.open(f"{path}/in/rows.csv", "wb") as file:
        file.write(b"id,prompt,image\na,x,\nb,y,p.png\nc,z,none.png\n")
    report = Job(spec(tmp_path, prompts=f"{place}/in/rows.csv"), make=paint).run()
    assert report is not None
    assert (report.pictures, report.failures) == (2, 1)
    assert set(files(tmp_path)) == {"a.png", "b.png"}


def test_two_runs_into_one_bucket_folder_on_one_machine_are_refused(tmp_path: Path, place: str) -> None:
    first = spec(tmp_path, WORDS, folder=place)
    first.begin()
    with pytest.raises(Unfinished, match="another process is writing"):
        spec(tmp_path, WORDS, folder=place).begin()
    first.ledger.leave()


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("ss3://b/x", r"--out ss3://b/x: found the scheme 'ss3'; wanted a folder, or a URL of s3://"),
        ("s3://no-such-bucket/x", r"s3://no-such-bucket/x.* cannot be written"),
    ],
)
def test_a_url_that_leads_nowhere_is_one_sentence(tmp_path: Path, s3: str, url: str, sentence: str) -> None:
    with pytest.raises(BadFile, match=sentence):
        spec(tmp_path, folder=url).begin()
    assert not (tmp_path / "ss3:").exists()


def test_a_path_that_lost_a_slash_is_still_a_url(s3: str) -> None:
    folder = folder_of(Path(f"{s3}/x"))
    assert isinstance(folder, Objects)
    assert folder.name == f"{s3}/x"


def test_lines_go_to_a_new_object_once_one_is_large(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ditstack.batch.store.objects.LARGEST_PART", 10)
    growing = Objects(f"{s3}/lines").appender("parts/manifest-0.jsonl")
    for _ in range(3):
        growing.append(b"123456\n")
    folder = folder_of(f"{s3}/lines")
    assert [folder.read(f"parts/{name}") for name in folder.names("parts")] == [b"123456\n" * 2, b"123456\n"]
    assert folder.grown("parts/manifest-0-000000.jsonl", 7) == b"123456\n"
