"""SVD-Cache beside its controls."""

from __future__ import annotations

from typing import Any

from ditstack.maths.fidelity import paired
from lines import head, line, signed
from results import latest

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


def svdcache(short: bool = False) -> str:
    """PSNR of every predictor and schedule, with its paired gain over the control; `short` keeps the headline rows."""
    data = latest("svdcache")
    counts = sorted({row["full"] for row in data["rows"]}, reverse=True)
    names = list(dict.fromkeys(row["name"] for row in data["rows"]))
    kept = [name for name in names if not short or name in HEADLINES]
    cells = {(row["name"], row["full"]): row for row in data["rows"]}
    lines = head(["", *(f"{count} full steps" for count in counts)])
    for name in kept:
        lines.append(line([name, *(_cell(cells[name, count]) for count in counts)]))
    where = f"{data['prompts']} unseen prompts, {data['steps']} steps, {data['machine']}"
    note = "in brackets the paired gain over the control with its 95 % interval."
    return "\n".join([*lines, "", f"PSNR in dB to the uncached pictures ({where});", note])


def svdcache_paired() -> str:
    """Whether fitted gains, a subspace and finer sites help over plain first order on the same schedule."""
    data = latest("svdcache")
    each = {(row["name"], row["full"]): row["psnr_each"] for row in data["rows"]}
    counts = sorted({row["full"] for row in data["rows"]}, reverse=True)
    lines = head(["gain over the default", *(f"{count} full steps" for count in counts)])
    for name in COMPARED:
        cells = []
        for count in counts:
            cells.append(signed(paired(each[name, count], each[DEFAULT, count])))
        lines.append(line([name, *cells]))
    return "\n".join([*lines, "", "Paired differences of PSNR in dB, with 95 % intervals over prompts."])


def svdcache_short() -> str:
    """The rows for the first screen."""
    return svdcache(short=True)


def _cell(row: dict[str, Any]) -> str:
    mean, low, high = row["gain"]
    if row["name"].startswith("control: fewer Euler"):
        return f"{row['psnr'][0]:.1f}"
    text = f"{row['psnr'][0]:.1f} ({mean:+.1f}; {low:+.1f} to {high:+.1f})"
    return f"**{text}**" if "(default)" in row["name"] else text
