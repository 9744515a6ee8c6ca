"""Writes the tables in README.md and docs/ from benchmarks/results: python benchmarks/table.py [--check]

Each stands between `<!-- table: NAME -->` and `<!-- end -->`; NAME is a function in a file of benchmarks/tables/. With
--check nothing is written, and the exit code is 1 where a page differs.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable
from pathlib import Path

import tables

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def main() -> None:
    stale = []
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = fill(before)
        if before != after:
            stale.append(page.name)
            if "--check" not in sys.argv:
                page.write_text(after, encoding="utf-8")
    print(f"{'differ' if '--check' in sys.argv else 'written'}: {', '.join(stale) or 'none'}")
    sys.exit("--check" in sys.argv and bool(stale))


def fill(text: str) -> str:
    """The text with every marked table written anew."""
    known = all_tables()

    def table(found: re.Match[str]) -> str:
        return f"<!-- table: {found[1]} -->\n\n{known[found[1]]()}\n\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def all_tables() -> dict[str, Callable[[], str]]:
    """Every public function of the files in benchmarks/tables, by name."""
    found: dict[str, Callable[[], str]] = {}
    for module in pkgutil.iter_modules(tables.__path__):
        room = importlib.import_module(f"tables.{module.name}")
        for name, one in inspect.getmembers(room, inspect.isfunction):
            if one.__module__ == room.__name__ and not name.startswith("_"):
                found[name] = one
    return found


if __name__ == "__main__":
    main()
