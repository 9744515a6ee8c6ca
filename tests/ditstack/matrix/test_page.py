"""The matrix's page, as text and in a real browser."""

import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ditstack.errors import BadFile
from ditstack.matrix import page
from matrices import EVIL, RECIPE, matrix

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-headless-shell", "chromium-browser"))), None)
in_browser = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason="needs Chromium and playwright: apt-get install chromium, pip install playwright",
)


@pytest.fixture
def written(tmp_path: Path) -> str:
    return page.write(matrix(tmp_path), tmp_path).read_text()


def test_it_is_one_file_that_names_no_other(written: str) -> None:
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|<link[^>]+stylesheet|<script[^>]+src=|url\(", written)
    assert set(re.findall(r'(?:src|href)="([^"#][^"]*)"', written)) == {"data:,"}
    assert len(set(re.findall(r"data:image/webp;base64,[^\"]+", written))) == 4, "one for each picture that differs"


def test_every_text_is_escaped(written: str) -> None:
    assert EVIL not in written
    assert "&lt;script&gt;alert(" in written
    assert written.count("</script>") == 2


def test_an_empty_matrix_says_that_nothing_was_measured(tmp_path: Path) -> None:
    empty = matrix(tmp_path).model_copy(update={"cells": [], "few_steps": [], "peers": []})
    assert "Nothing has been measured yet" in page.write(empty, tmp_path).read_text()


def test_a_picture_that_is_missing_is_named(tmp_path: Path) -> None:
    given = matrix(tmp_path)
    (tmp_path / "int8-reuse.png").unlink()
    with pytest.raises(BadFile, match="int8-reuse"):
        page.write(given, tmp_path)


def test_pictures_are_left_out_rather_than_making_the_page_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "_MOST_PICTURES", 4)
    given = matrix(tmp_path)
    given.pictured = ["one", "two", "three"]
    for one in given.cells:
        one.pictures = one.pictures * 3
    text = page.write(given, tmp_path).read_text()
    assert "the first 1 of 3 pictures" in text


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture
def browse(chromium: Any, tmp_path: Path, written: str) -> Iterator[Any]:
    """Opens the page in a window of given properties; afterwards there was no complaint and no request outside."""
    complaints, contexts = [], []

    def opened(**given: Any) -> Any:
        contexts.append(chromium.new_context(offline=True, **given))
        tab = contexts[-1].new_page()
        tab.on("console", lambda said: complaints.append(said.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("dialog", lambda box: complaints.append(f"an alert: {box.message}"))
        tab.on("request", lambda asked: complaints.append(asked.url) if not inside(asked.url) else None)
        tab.goto((tmp_path / page.NAME).as_uri())
        return tab

    def inside(url: str) -> bool:
        return url.startswith(("data:", (tmp_path / page.NAME).as_uri()))

    yield opened
    assert complaints == []
    for context in contexts:
        context.close()


def names(tab: Any) -> list[str]:
    return tab.eval_on_selector_all("#table tbody tr:not([hidden])", "all => all.map(one => one.dataset.name)")


@in_browser
def test_a_heading_sorts_and_says_so(browse: Any) -> None:
    tab = browse()
    head = tab.locator("th[data-key=speedup]")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert names(tab) == ["none-reuse", "int8-reuse", "none-none", "int8-none", "none-idle", "nf4-reuse"]
    assert tab.locator("#table th[data-key]").nth(1).get_attribute("data-key") == "to_baseline.psnr"
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert names(tab) == ["none-idle", "int8-none", "none-none", "int8-reuse", "none-reuse", "nf4-reuse"]
    tab.locator("th[data-key='to_baseline.psnr'] button").click()
    assert set(names(tab)[:2]) == {"none-none", "none-idle"}, "exact is best"
    assert head.get_attribute("aria-sort") == "none"


@in_browser
def test_filters_narrow_the_table_and_the_plot_and_the_front_follows(browse: Any) -> None:
    tab = browse()
    assert tab.locator(".point").count() == 5
    assert tab.locator("#front li").all_text_contents() == ["plain 1.00 x, exact", "reuse 3.50 x, 26.0 dB"]
    tab.locator("[data-stage=quantize]").select_option("int8")
    assert names(tab) == ["int8-reuse", "int8-none"]
    assert tab.locator(".point").count() == 2
    assert tab.locator("#count").inner_text() == "2 of 6 shown"
    tab.locator("[data-stage=status]").select_option("failed")
    assert tab.locator("#none").is_visible()
    tab.get_by_role("button", name="Show all").click()
    tab.get_by_text("6 of 6 shown").wait_for()
    assert len(names(tab)) == 6


@in_browser
def test_axes_carry_their_units_and_can_be_chosen(browse: Any) -> None:
    tab = browse()
    texts = tab.locator("#plot text.axis").all_text_contents()
    assert texts == [
        "↑ PSNR (dB), higher is better",
        "speed-up (x), higher is better →",
    ]
    tab.locator("#y").select_option("to_baseline.relative_l2")
    assert "lower is better" in tab.locator("#plot text.axis").first.text_content()
    assert {"speedup", "seconds"} <= set(tab.locator("#x option").evaluate_all("all => all.map(one => one.value)"))


@in_browser
def test_a_point_opens_its_pictures_its_interaction_and_its_recipe(browse: Any) -> None:
    tab = browse(permissions=["clipboard-read", "clipboard-write"])
    tab.locator(".point[data-open=int8-reuse]").click()
    dialog = tab.get_by_role("dialog")
    assert "int8 · reuse" in dialog.get_by_role("heading", level=2).inner_text()
    shown = dialog.locator(".pair img")
    assert shown.evaluate_all("all => all.every(one => one.complete && one.naturalWidth === 16)")
    assert len(set(shown.evaluate_all("all => all.map(one => one.src)"))) == 2
    sides = dialog.locator(".pair span, .ends span").evaluate_all(
        "all => all.map(one => [one.textContent, one.getBoundingClientRect().x])"
    )
    left, right, *legend = (text for text, _ in sides)
    assert (left, right) == tuple(legend) == ("plain", "stacked"), "the slider's ends are those of the picture"
    assert sides[0][1] < sides[1][1]
    assert sides[2][1] < sides[3][1]
    slide = dialog.get_by_label("slide between")
    slide.focus()
    slide.press("Home")
    assert dialog.locator(".pair").evaluate("one => one.style.getPropertyValue('--at')") == "0%"
    dialog.get_by_label("their difference").check()
    assert "difference" in (dialog.locator(".pair").get_attribute("class") or "")
    assert "+0.0100 beyond" in dialog.inner_text()
    dialog.get_by_role("button", name="Copy the recipe").click()
    dialog.get_by_text("Copied.").wait_for()
    assert tab.evaluate("navigator.clipboard.readText()") == RECIPE
    dialog.get_by_role("button", name="reuse").first.click()
    assert dialog.get_by_role("heading", level=2).inner_text().startswith("reuse")


@in_browser
def test_the_keyboard_reaches_everything_and_gets_its_place_back(browse: Any) -> None:
    tab = browse()
    tab.locator(".point[tabindex='0']").focus()
    tab.keyboard.press("End")
    tab.keyboard.press("Enter")
    assert tab.get_by_role("dialog").get_by_role("heading", level=2).inner_text().startswith("reuse")
    assert tab.evaluate("document.activeElement.closest('dialog') !== null")
    tab.keyboard.press("Escape")
    assert tab.get_by_role("dialog").count() == 0
    assert tab.evaluate("document.activeElement.dataset.open") == "none-reuse"
    unnamed = "all => all.filter(one => !(one.textContent || one.ariaLabel || (one.labels || []).length)).length"
    assert tab.eval_on_selector_all("button, select, input", unnamed) == 0


@in_browser
def test_a_link_to_a_cell_opens_it_and_a_refused_one_shows_its_sentence(browse: Any, tmp_path: Path) -> None:
    tab = browse()
    assert "No. <script>" in tab.locator("tr[data-name=nf4-reuse]").inner_text()
    tab.goto("about:blank")
    tab.goto((tmp_path / page.NAME).as_uri() + "#nf4-reuse")
    assert "No. <script>" in tab.get_by_role("dialog").inner_text()


@in_browser
def test_a_phone_never_scrolls_sideways(browse: Any) -> None:
    tab = browse(viewport={"width": 360, "height": 740})
    wide = "document.documentElement.scrollWidth <= innerWidth"
    assert tab.evaluate(wide)
    tab.locator("#table button.link").nth(3).click()
    assert tab.evaluate(wide)
    assert tab.get_by_role("dialog").evaluate("one => one.scrollWidth <= one.clientWidth")


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_ink_stands_out_in_both_schemes(browse: Any, scheme: str) -> None:
    tab = browse(color_scheme=scheme)
    colours = tab.evaluate("(one => [one.color, one.backgroundColor])(getComputedStyle(document.body))")
    ink, ground = (sum(int(part) for part in re.findall(r"\d+", text)[:3]) for text in colours)
    assert (ink - ground > 450) if scheme == "dark" else (ground - ink > 450)


def test_the_page_opens_with_what_to_use_each_with_its_recipe(written: str) -> None:
    told = written[written.index("What should I use?") : written.index("The baseline")]
    wanted = {"Fastest above the gate": "none-none", "Best quality at 2x": "none-reuse", "Least memory": "int8-none"}
    for wish, name in wanted.items():
        assert f'data-copy="{name}"' in told[told.index(wish) :].split("</li>")[0], wish
    assert written.index("What should I use?") < written.index("<form")
    assert "judged by the worse end of the 95 % interval" in written


@in_browser
def test_the_front_comes_first_and_the_recipes_of_the_advice_can_be_copied(browse: Any) -> None:
    tab = browse(permissions=["clipboard-read", "clipboard-write"])
    assert names(tab)[:2] == ["none-reuse", "none-none"]
    assert tab.locator("tr.best").count() == 2
    assert tab.locator(".whisker").count() >= 5, "intervals along both axes"
    tab.locator("#advice .copy").first.click()
    tab.locator("#advice").get_by_text("Copied.").wait_for()
    assert tab.evaluate("navigator.clipboard.readText()") == RECIPE


@in_browser
def test_many_rows_do_not_make_a_long_page(tmp_path: Path, chromium: Any) -> None:
    given = matrix(tmp_path)
    rows = [one for one in given.cells if one.status != "refused"]
    given.cells += [one.model_copy(update={"name": f"{one.name}-{at}"}) for at in range(40) for one in rows]
    file = page.write(given, tmp_path)
    tab = chromium.new_page(viewport={"width": 1400, "height": 900})
    tab.goto(file.as_uri())
    assert tab.evaluate("document.documentElement.scrollHeight") < 5000
    assert tab.locator("#count").inner_text() == f"25 of {len(given.cells)} shown"
    tab.locator("#more").click()
    assert len(names(tab)) == len(given.cells)
    tab.close()


@in_browser
def test_a_phone_shows_quality_and_speed_without_scrolling_sideways(browse: Any) -> None:
    tab = browse(viewport={"width": 390, "height": 844})
    for place in (1, 2):
        box = tab.locator("#table tbody tr").first.locator("th, td").nth(place).bounding_box()
        assert box["x"] + box["width"] <= 390
