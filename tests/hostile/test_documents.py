"""Recipes, --set values, prompts and rows, changed at random: a sentence or a recipe, at once and in little memory."""

import json
import tempfile
from pathlib import Path

import yaml
from cases import counts, one_case
from hypothesis import given
from hypothesis import strategies as st

from ditstack.batch.rows.check import read_rows
from ditstack.batch.rows.sources import Source
from ditstack.files import read_prompts
from ditstack.recipe.layers import shelf
from ditstack.recipe.plan import plan
from ditstack.recipe.recipe import TOP_KEYS, Recipe

SHELF = [path.read_text() for path in sorted(shelf().glob("*.yaml"))]
WORDS = [
    "tiny",
    "flux",
    "icc",
    "svdcache",
    "mixed",
    "none",
    "torchao",
    "int8",
    "graded",
    "auto",
    "x",
    "[/red]",
    "~",
    "..",
]
FIELDS = [
    "method",
    "interval",
    "rank",
    "schedule",
    "steps",
    "size",
    "scheme",
    "source",
    "device",
    "factors",
    "settings",
]
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-3, 40),
    st.floats(),
    st.sampled_from(WORDS),
    st.text(max_size=30),
)
VALUES = st.recursive(
    ODD,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=8), inner),
    max_leaves=12,
)
NASTY = [
    "&a [*a]",
    "!!int abc",
    "!!timestamp x",
    "2020-02-31",
    "9" * 5000,
    "[" * 2000,
    "{" * 2000,
    "!!binary x",
    "<<: 3",
    "\t",
    "!!python/object:os.system x",
    '"\\ud800"',
    '"\\0"',
    ".nan",
    ".inf",
    "1e400",
    "0x" + "f" * 400,
    "1:" * 500,
    "? a",
    "%",
    "&a [1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c]",
]


@st.composite
def recipes(draw: st.DrawFn) -> bytes:
    """A recipe's file: of random data, or one of the shelf with pieces cut out, doubled or replaced."""
    if draw(st.booleans()):
        data = draw(st.dictionaries(st.sampled_from(TOP_KEYS) | st.text(max_size=8), VALUES, max_size=6))
        return yaml.safe_dump(data, allow_unicode=True).encode("utf-8", "surrogatepass")
    text = draw(st.sampled_from(SHELF))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        piece = draw(st.sampled_from(NASTY) | st.text(max_size=12) | st.sampled_from(WORDS))
        text = text[:start] + piece + text[start + draw(st.integers(0, 8)) :]
    return text.encode("utf-8", "surrogatepass")


@given(recipes())
@counts(60, 2000)
def test_a_recipe_is_read_or_refused(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "r.yaml").write_bytes(data)
        with one_case("recipes"):
            read = Recipe.read(Path(folder) / "r.yaml")
            assert Recipe.parse(json.loads(json.dumps(read.resolved()))) == read
            plan(read)


@given(
    st.sampled_from(["cache.", "sampler.", "model.", "", "a.b."]),
    st.sampled_from([*FIELDS, *TOP_KEYS, ""]) | st.text(max_size=10),
    st.sampled_from(NASTY) | st.text(max_size=30) | VALUES.map(repr),
)
@counts(60, 2000)
def test_a_change_is_taken_or_refused(section: str, field: str, value: str) -> None:
    with one_case("--set values"):
        Recipe.read("tiny-none-native-svdcache", [f"{section}{field}={value}"])


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")))
@counts(60, 500)
def test_prompts_are_read_or_refused(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "p.txt").write_bytes(data)
        with one_case("prompts files"):
            prompts = read_prompts(Path(folder) / "p.txt")
            assert all(prompt.strip() == prompt and "\n" not in prompt for prompt in prompts)


COLUMNS = ["id", "prompt", "seed", "width", "height", "steps", "guidance", "num_images", "image", "strength", "extra"]
ROWS = st.lists(st.dictionaries(st.sampled_from(COLUMNS) | st.text(max_size=5), VALUES, max_size=6), max_size=4)


@st.composite
def row_files(draw: st.DrawFn) -> tuple[str, bytes]:
    """A prompts file of some kind, with pieces replaced."""
    kind, rows = draw(st.sampled_from([".jsonl", ".csv", ".txt"])), draw(ROWS)
    if kind == ".jsonl":
        data = "\n".join(json.dumps(row) for row in rows).encode()
    else:
        cells = [",".join(str(value) for value in row.values()) for row in rows]
        data = "\n".join(["id,prompt,seed,width,height,image", *cells]).encode("utf-8", "surrogatepass")
    start = draw(st.integers(0, len(data)))
    return kind, data[:start] + draw(st.binary(max_size=8)) + data[start + draw(st.integers(0, 4)) :]


@given(row_files())
@counts(60, 2000)
def test_rows_are_read_or_named_by_their_line(file: tuple[str, bytes]) -> None:
    kind, data = file
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows{kind}"
        path.write_bytes(data)
        with one_case("rows"):
            assert all(row.line > 0 for row in read_rows(Source.find(path)))
