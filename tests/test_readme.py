"""The README says what is so: its tables come from results, its recipe and its links are real."""

import re
from pathlib import Path

import table
from ditstack.recipe.layers import shelf, shelf_names
from ditstack.recipe.recipe import Recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_every_table_is_what_the_committed_results_give() -> None:
    for page in table.PAGES:
        text = page.read_text()
        assert table.fill(text) == text, f"run python benchmarks/table.py: {page.name} is stale"


def test_the_recipe_shown_is_the_one_on_the_shelf(tmp_path: Path) -> None:
    shown = re.search(r"```yaml\n# recipes/(\S+)\n(.*?)```", README, re.DOTALL)
    assert shown is not None
    path = tmp_path / shown[1]
    path.write_text(shown[2])
    assert Recipe.read(path).resolved() == Recipe.read(shelf() / shown[1]).resolved()


def test_every_recipe_link_and_picture_named_exists() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
    for name in re.findall(r'ditstack\.apply\(pipe, "([^"]+)"\)', README):
        assert name in shelf_names()
    for word in re.findall(r"(?:ditstack run|recipe) `?((?:tiny|flux)-[a-z0-9-]+)", README):
        assert word in shelf_names()


def test_recipes_are_short_and_named_after_their_stages() -> None:
    for path in shelf().glob("*.yaml"):
        assert path.read_text().count("\n") <= 20, path.name


def test_the_first_screen_of_tables_tells_the_controls_the_model_s_smallness_our_reading_and_who_is_ahead() -> None:
    before, _, after = README.partition("<!-- table: first_screen -->")
    screen = before.rpartition("\n## ")[2] + after.partition("<!-- end -->")[0]
    assert screen.count("\n") < 40
    for said in (
        "no cache, by the solver best on other prompts",
        "a small one",
        "our\nreading",
        "Ahead of the default",
    ):
        assert said in screen, said
    assert README.count("\n") < 150, "two minutes"
