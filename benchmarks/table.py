"""Writes the tables in README.md and docs/ from benchmarks/results: python benchmarks/table.py [--check]

Each stands between `<!-- table: NAME -->` and `<!-- end -->`. With --check nothing is written, and the exit code is 1
where a page differs.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ditstack.quality import bootstrap
from results import latest

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

    def table(found: re.Match[str]) -> str:
        return f"<!-- table: {found[1]} -->\n\n{TABLES[found[1]]()}\n\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def svdcache(short: bool = False) -> str:
    """PSNR of every predictor and schedule, with its paired gain over the control; `short` keeps the headline rows."""
    data = latest("svdcache")
    counts = sorted({row["full"] for row in data["rows"]}, reverse=True)
    names = list(dict.fromkeys(row["name"] for row in data["rows"]))
    kept = [name for name in names if not short or name in HEADLINES]
    cells = {(row["name"], row["full"]): row for row in data["rows"]}
    lines = [_row(["", *(f"{count} full steps" for count in counts)]), _row(["---"] * (len(counts) + 1))]
    for name in kept:
        lines.append(_row([name, *(_cell(cells[name, count]) for count in counts)]))
    where = f"{data['prompts']} unseen prompts, {data['steps']} steps, {data['machine']}"
    note = "in brackets the paired gain over the control with its 95 % interval."
    return "\n".join([*lines, "", f"PSNR in dB to the uncached pictures ({where});", note])


def svdcache_paired() -> str:
    """Whether fitted gains, a subspace and finer sites help over plain first order on the same schedule."""
    data = latest("svdcache")
    each = {(row["name"], row["full"]): row["psnr_each"] for row in data["rows"]}
    counts = sorted({row["full"] for row in data["rows"]}, reverse=True)
    lines = [_row(["gain over the default", *(f"{count} full steps" for count in counts)])]
    lines.append(_row(["---"] * (len(counts) + 1)))
    for name in COMPARED:
        cells = []
        for count in counts:
            pairs = zip(each[name, count], each[DEFAULT, count], strict=True)
            mean, low, high = bootstrap([a - b for a, b in pairs])
            cells.append(f"{mean:+.2f} ({low:+.2f} to {high:+.2f})")
        lines.append(_row([name, *cells]))
    return "\n".join([*lines, "", "Paired differences of PSNR in dB, with 95 % intervals over prompts."])


DEFAULT = "graded: order 1 in steps (default)"
COMPARED = (
    "graded: fitted gains",
    "graded: fitted gains, rank 16",
    "graded: order 1 in steps, rank 16",
    "graded: order 1 in steps, rank 64",
    "graded: order 1 in steps, every branch of every block",
    "even: order 1 in steps",
    "even: order 1 in sigma",
    "graded: order 1 in sigma",
)
HEADLINES = {
    "control: fewer Euler steps",
    "control: fewer DPM-Solver++ 2M steps",
    "paper's schedule: ema, energy 0.85 (eq. 11)",
    "paper's schedule: reuse",
    "paper's schedule: order 1 in steps",
    "even: reuse",
    DEFAULT,
}


def _cell(row: dict[str, Any]) -> str:
    mean, low, high = row["gain"]
    if row["name"].startswith("control: fewer Euler"):
        return f"{row['psnr'][0]:.1f}"
    text = f"{row['psnr'][0]:.1f} ({mean:+.1f}; {low:+.1f} to {high:+.1f})"
    return f"**{text}**" if "(default)" in row["name"] else text


def step_cost() -> str:
    """What a forecast step costs beside a full one."""
    data = latest("step_cost")
    seconds = data["seconds_per_step"]
    rows = [
        ("full step", f"{seconds['full']:.3f} s"),
        ("forecast step", f"{seconds['forecast']:.4f} s ({100 * data['forecast_share_of_full']:.2f} % of a full one)"),
        ("denoising speed-up", f"{data['speedup']:.2f}x of {data['steps_over_full_steps']:.1f}x steps / full steps"),
        ("features kept per branch", f"{data['features_kept_per_branch']:.0f}"),
    ]
    head = [
        _row([f"12-block FLUX, width {data['width']}, {data['tokens']} tokens", data["machine"]]),
        _row(["---", "---"]),
    ]
    return "\n".join([*head, *(_row(list(row)) for row in rows)])


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


TABLES: dict[str, Callable[[], str]] = {
    "svdcache": svdcache,
    "svdcache_paired": svdcache_paired,
    "svdcache_short": lambda: svdcache(short=True),
    "step_cost": step_cost,
}

if __name__ == "__main__":
    main()
