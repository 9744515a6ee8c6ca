"""Manifests cut at random bytes and spoilt: the same command ends with every row once, and every picture as it was."""

import random
import shutil
from pathlib import Path

import pytest
from cases import FIGURES, LONG, one_case

from ditstack.batch.store.disk import Disk
from stub_batch import go_on, lines, spec

COUNT = 8
WORDS = "".join(f"picture {place}\n" for place in range(COUNT))
CUT, SPOILT = "manifests: cut", "manifests: a bit flipped, doubled, or written to by others"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A finished batch as files, and one as shards."""
    homes = {shards: tmp_path_factory.mktemp(f"whole-{shards}") for shards in (0, 3)}
    for shards, home in homes.items():
        go_on(spec(home, WORDS, shards=shards))
    return homes


def damaged(data: bytes, kind: str, chance: random.Random) -> bytes:
    place = chance.randrange(len(data))
    if kind == CUT:
        return data[:place]
    flipped = data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]
    return chance.choice(
        [flipped, data + data, data[:place] + data, flipped[place:] + b"[]\n\xff\n", b"\0" * 99 + data]
    )


def pictures(home: Path) -> dict[int, bytes]:
    """By number, as the lines say where they lie."""
    found: dict[int, bytes] = {}
    for line in lines(home):
        data, start = (home / "out" / line["file"]).read_bytes(), line.get("offset", 0)
        assert line["number"] not in found, "a row is there twice"
        found[line["number"]] = data[start : start + line["bytes"]]
    return found


@pytest.mark.parametrize("shards", [0, 3])
def test_a_damaged_manifest_loses_nothing(tmp_path: Path, whole: dict[int, Path], shards: int) -> None:
    chance, want = random.Random(None if LONG else shards), pictures(whole[shards])
    for turn in range(300 if LONG else 10):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        shutil.copytree(whole[shards] / "out", tmp_path / "out")
        manifest, kind = tmp_path / "out" / "manifest.jsonl", (CUT, SPOILT)[turn % 2]
        data = damaged(manifest.read_bytes(), kind, chance)
        killed = turn % 4 > 1  # as a kill leaves it: the lines of a process that did not end
        (tmp_path / "out" / "parts").mkdir(exist_ok=True)
        manifest.unlink()
        (tmp_path / "out" / "parts" / "manifest-0.jsonl" if killed else manifest).write_bytes(data)
        with one_case(kind):
            go_on(spec(tmp_path, WORDS, shards=shards))
        assert FIGURES[kind].refused == 0, "a damaged manifest is repaired, not refused"
        assert pictures(tmp_path) == want
        assert all(Disk(tmp_path / "out").holds(line) for line in lines(tmp_path))
