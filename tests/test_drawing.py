"""The drawing of the rooms in CONTRIBUTING.md: it is of today, and no arrow in it runs up."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = runpy.run_path(str(ROOT / "scripts" / "rooms"))


def test_the_drawing_is_of_today() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert ROOMS["filled"](page) == page, "run scripts/rooms"


def test_no_arrow_runs_up_and_every_room_is_drawn() -> None:
    lines = [line for line in ROOMS["drawing"]().splitlines() if line != "```"]
    drawn = [line.split()[0].rstrip("/") for line in lines if not line.startswith(" ")]
    for place, line in enumerate(lines):
        above = [one.split()[0] for one in lines[:place] if not one.startswith(" ")]
        for target in re.findall(r"[\w/]+", line.partition("->")[2]) if line.startswith(" ") else ():
            assert target not in above
            assert target.rstrip("/") in drawn
    assert {name for name in ROOMS["arrows"]() if not name.startswith("__")} == set(drawn)


def test_a_circle_of_rooms_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="a circle among a, b"):
        ROOMS["storeys"]({"a": {"b"}, "b": {"a"}, "c": set()})
