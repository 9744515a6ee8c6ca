"""The site: it builds without a warning, no link of it is dead, and no page asks the network for anything."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections import deque
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from ditstack.recipe.adapter import STAGES, methods

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("mkdocs", "material", "mkdocstrings")),
    reason="needs the extra docs: pip install 'ditstack[docs]'",
)


class Links(HTMLParser):
    """What a page leads to, what it loads, and the names on it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.leads: list[str] = []
        self.loads: list[str] = []
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.names |= {given[key] for key in ("id", "name") if key in given}
        if tag == "a" and "href" in given:
            self.leads.append(given["href"])
        elif tag == "link" and given.get("rel") in ("stylesheet", "icon", "preconnect"):
            self.loads.append(given["href"])
        elif "src" in given:
            self.loads.append(given["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as scripts/docs does: a warning is an error."""
    import warnings

    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    known = list(sys.path)
    with warnings.catch_warnings(action="ignore"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_MKDOCS_2_WARNING", "1")
        config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True)
        config.plugins.on_startup(command="build", dirty=False)
        build(config)
    sys.path[:] = known
    return folder


def pages(site: Path) -> dict[Path, Links]:
    return {path: Links(path.read_text(encoding="utf-8")) for path in site.rglob("*.html") if path.name != "404.html"}


def test_no_link_and_no_anchor_is_dead_and_nothing_comes_from_the_network(site: Path) -> None:
    known = pages(site)
    dead = []
    for path, links in known.items():
        for target in links.leads + links.loads:
            if target.startswith(("https://", "mailto:")):
                if target in links.loads:
                    dead.append(f"{path.relative_to(site)} loads {target}")
                continue
            file, _, anchor = unquote(target).partition("#")
            there = (path.parent / file).resolve() if file else path
            if not there.is_file() or (anchor and there in known and anchor not in known[there].names):
                dead.append(f"{path.relative_to(site)} -> {target}")
    assert dead == []
    assert "unpkg" not in (site / "404.html").read_text()


def test_every_method_has_a_page_with_its_fields_and_every_page_is_of_a_method(site: Path) -> None:
    for stage in STAGES:
        for method in methods(stage):
            text = (site / "methods" / stage / f"{method}.html").read_text(encoding="utf-8")
            assert f"ditstack show {stage}/{method}" in text
            assert "Fields" in text
    svdcache = (site / "methods" / "cache" / "svdcache.html").read_text(encoding="utf-8")
    for said in (
        "F_hat = F_last",
        "arxiv.org/abs/2601.07396",
        "When it wins, when it loses",
        "Measured",
        "first_enhance",
    ):
        assert said in svdcache


def test_three_questions_are_answered_within_two_clicks_of_the_start(site: Path) -> None:
    answers = {"flux-nf4-native-svdcache": None, "judged by": None, "class Drift": None}
    start, known = site / "index.html", pages(site)
    far = {start: 0}
    waiting = deque([start])
    while waiting:
        here = waiting.popleft()
        for target in known[here].leads:
            there = (here.parent / target.partition("#")[0]).resolve()
            if there in known and there not in far:
                far[there] = far[here] + 1
                waiting.append(there)
    for answer in answers:
        plain = {path: re.sub(r"<[^>]+>", "", path.read_text(encoding="utf-8")) for path in known}
        assert min(far[path] for path, text in plain.items() if answer in text) <= 2, answer
    assert set(far) == set(known), "every page is reached from the start"
