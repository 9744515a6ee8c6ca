"""Terminal: what the commands share: where they print, and the options that several of them take."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from ditstack.errors import BadFile
from ditstack.files import MOST_PROMPTS, read_prompts

if TYPE_CHECKING:
    from ditstack.recipe.recipe import Recipe

out = Console(highlight=False, markup=False, emoji=False)
err = Console(stderr=True, highlight=False, markup=False, emoji=False)


def suggest_recipes(begun: str) -> list[str]:
    """Recipes that begin so, for a shell to complete."""
    from ditstack.recipe.layers import shelf_names

    return [name for name in shelf_names() if name.startswith(begun)]


def suggest_words(begun: str) -> list[str]:
    """Recipes and methods that begin so, for a shell to complete."""
    from ditstack.recipe.adapter import STAGES, methods

    words = [word for stage in STAGES for method in methods(stage) for word in (method, f"{stage}/{method}")]
    return [*suggest_recipes(begun), *(word for word in words if word.startswith(begun))]


RecipeName = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE", autocompletion=suggest_recipes, help="A name on the shelf (see `ditstack recipes`) or a path."
    ),
]
Changes = Annotated[list[str], typer.Option("--set", metavar="PATH=VALUE", help="Override a field: cache.interval=7.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what the output folder holds.")]
Promise = Annotated[
    bool, typer.Option("--promise", help="Take the setting that `ditstack calibrate` certified, and keep the promise.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON on standard output.")]
PromptsFile = Annotated[Path | None, typer.Option("--prompts", help="A text file with one prompt a line.")]
PromptsOrCount = Annotated[
    str | None,
    typer.Option(
        "--prompts", metavar="FILE|N", help="A text file with one prompt a line, or how many of the model's own to use."
    ),
]


def chosen_prompts(recipe: Recipe, given: str | None) -> list[str]:
    """Those of a file, so many of the model's own, or the recipe's.

    Raises:
        BadFile: there are none, or not so many.
    """
    if given is not None and not (given.isdecimal() and given.isascii()):
        return read_prompts(Path(given))
    if given is not None and len(given) > 9:
        raise BadFile(f"--prompts: found {given[:20]}; wanted a file, or at most {MOST_PROMPTS:,}")
    count, judge = int(given or 0), recipe.model.judge()
    try:
        found = judge.prompts(count) if count and judge is not None else list(recipe.prompts)
    except ValueError as error:
        raise BadFile(f"{error}; give --prompts FILE") from None
    if not found or len(found) < count:
        raise BadFile(f"recipe {recipe.name} names {len(found)} prompts; give --prompts FILE")
    return found[:count] if count else found


def size_of(text: str, option: str) -> int:
    """Bytes of "16GB", "800 MB", "24GiB" or "1000000"; 0 for nothing.

    Raises:
        BadFile: it is no size.
    """
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?|\d{1,18})\s*([kmg]?)(i?)b?", text.strip().lower(), re.ASCII)
    if text and found is None:
        raise BadFile(f"{option}: found {text[:40]!r}; wanted a size such as 16GB")
    if found is None:
        return 0
    return int(float(found[1]) * (1024 if found[3] else 1000) ** " kmg".index(found[2] or " "))


@contextmanager
def telling() -> Iterator[Callable[[str], None]]:
    """A line that turns while long work is done; what is told replaces it."""
    with err.status("") as status:
        yield lambda text: status.update(Text(text))
