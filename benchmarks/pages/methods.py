"""A page for every method of every stage: its equation, source and fields, what was measured, and who uses it.

What a person has to say of a method, such as when it wins and when it loses, is docs/methods/STAGE/METHOD.md; all else
comes from the method's file, the shelf and the committed results.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ditstack.recipe.adapter import STAGES, methods
from ditstack.recipe.layers import read_layers, shelf_names
from ditstack.recipe.manual import FieldOf, Manual
from lines import head, line
from pages import measured

STAGE_SAYS = {
    "model": "which pipeline runs",
    "distill": "fewer steps, by a LoRA or a sampler fitted to the model",
    "quantize": "weights in fewer bits",
    "attention": "which kernel answers attention",
    "cache": "which steps run in full, and what the others do",
    "compile": "what still runs, compiled",
}
FORMULA = 4
"""Lines, at most: a longer paragraph is prose that holds an equation."""
ARXIV = re.compile(r"(?:arXiv )?\b(\d{4}\.\d{5})\b")


def path_of(stage: str, method: str) -> str:
    """Below docs/."""
    return f"methods/{stage}/{method}.md"


def every() -> Iterator[tuple[str, str]]:
    """(stage, method), in the one order of stages; methods of this house alone."""
    for stage in STAGES:
        for method in methods(stage):
            yield stage, method


def page(stage: str, method: str, said: str = "") -> str:
    """The page; `said` is what a person wrote of the method."""
    manual = Manual.of(stage, method)
    parts = [
        f"# {method}",
        "",
        f"A method of the stage **{stage}**: {STAGE_SAYS[stage]}. In a terminal: `ditstack show {stage}/{method}`.",
        "",
        *_about(manual.about),
        "",
        *(["## When it wins, when it loses", "", said.strip(), ""] if said else []),
        *measured.of(stage, method),
        *_fields(manual),
        *_recipes(stage, method),
    ]
    return "\n".join(parts).rstrip() + "\n"


def index() -> str:
    """Every method on one page, with its first sentence."""
    lines = [
        "# Methods",
        "",
        "A recipe names one method for each stage, always in this order; a stage that is left out does nothing. Each",
        "page is made from the method's own file, the shelf and the committed results.",
        "",
    ]
    for stage in STAGES:
        lines += [f"## {stage}", "", f"*{STAGE_SAYS[stage]}*", "", *head(["method", "what it does"])]
        for method in methods(stage):
            first = Manual.of(stage, method).about.split("\n\n")[0]
            lines.append(line([f"[{method}]({stage}/{method}.md)", _linked(" ".join(first.split()))]))
        lines.append("")
    return "\n".join(lines)


def nav() -> list[object]:
    """For mkdocs: the index, then the methods by stage."""
    found: dict[str, list[object]] = {stage: [] for stage in STAGES}
    for stage, method in every():
        found[stage].append({method: path_of(stage, method)})
    return ["methods/index.md", *({stage: pages} for stage, pages in found.items())]


def _about(text: str) -> Iterator[str]:
    """Paragraphs as they are; lines of an equation or a list of terms keep their form."""
    for part in text.split("\n\n"):
        if _is_formula(part):
            yield from ("```text", *part.splitlines(), "```", "")
            if found := ARXIV.findall(part):
                yield from (f"Source: {', '.join(_link(number) for number in found)}.", "")
        else:
            yield from (_linked(part), "")


def _is_formula(part: str) -> bool:
    """Whether a paragraph opens with an equation, or is a list of terms in columns."""
    first = part.splitlines()[0]
    if len(part.splitlines()) > FORMULA:
        return False
    return bool(re.match(r"[\w()^+']+ [=<] |Skip while |Reuse what |[A-Z]  \w", first)) or bool(
        re.match(r"\w[\w()^+*_']* = ", first)
    )


def _linked(text: str) -> str:
    text = re.sub(r"docs/(\w+)\.md", r"[\1](../../\1.md)", text)
    return re.sub(r"arXiv (\d{4}\.\d{5})", lambda found: _link(found[1]), text)


def _link(number: str) -> str:
    return f"[arXiv {number}](https://arxiv.org/abs/{number})"


def _fields(manual: Manual) -> Iterator[str]:
    yield from ("## Fields", "")
    if not manual.fields:
        yield from (f"None: write `{manual.stage}: {manual.method}`.", "")
        return
    yield from (f"In a recipe: `{manual.stage}: {{method: {manual.method}, ...}}`.", "")
    yield from head(["field", "allowed", "default", "meaning"])
    yield from (line(_row(one)) for one in manual.fields)
    yield ""


def _row(one: FieldOf) -> list[str]:
    cells = [f"`{one.name}`", one.allowed, f"`{one.default}`" if one.default else "must be given", one.meaning]
    return [cell if at == 2 else _words(cell) for at, cell in enumerate(cells)]


def _words(text: str) -> str:
    """Text that makes no tag and no column."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "&#124;")


def _recipes(stage: str, method: str) -> Iterator[str]:
    """Those on the shelf that name it."""
    named = []
    for name in shelf_names():
        here = read_layers(name, []).data.get(stage)
        if here is not None and here["method"] == method:
            named.append(name)
    if named:
        yield from ("## Recipes with it", "", ", ".join(f"`{name}`" for name in named) + ".", "")


def said_of(docs: Path, stage: str, method: str) -> str:
    """What a person wrote of a method, without a title; empty where nobody did."""
    file = docs / path_of(stage, method)
    return file.read_text(encoding="utf-8") if file.is_file() else ""
