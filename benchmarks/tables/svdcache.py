"""SVD-Cache beside its controls, and what its paper's equation may mean."""

from __future__ import annotations

from typing import Any

from lines import head, line, signed
from peers_rows import CONVERGED, UNCACHED, Row, gain, told
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


def svdcache() -> str:
    """Every predictor, schedule and control: mean and low end, and the paired gain over the best control."""
    data = latest("svdcache")
    rows, counts = _rows(data), _counts(data)
    titles = [f"{count} full{word}" for count in counts for word in (": mean / 5 %", ", over the best control")]
    lines = head(["PSNR in dB to uncached", *titles])
    for name in dict.fromkeys(name for name, _ in rows):
        cells = []
        for count in counts:
            row, control = rows.get((name, count)), _best_control(rows, count)
            cells += ["", ""] if row is None else [_figures(row, UNCACHED), _over(row, control)]
        lines.append(line([f"**{name}**" if name == DEFAULT else name, *cells]))
    where = f"{data['prompts']} unseen prompts, {data['steps']} steps, {data['machine']}"
    best = ", ".join(f"{_best_control(rows, count)['name'].removeprefix('control: ')} at {count}" for count in counts)
    note = f"The best control, chosen on other prompts: {best}. Gains of the mean, paired, with 95 % intervals."
    return "\n".join([*lines, "", f"({where}.) {note}"])


def svdcache_read() -> str:
    """Both readings of the paper's moving average, two bases and two granularities."""
    data = latest("svdcache_read")
    rows, counts = _rows(data), _counts(data)
    lines = head(["", *(f"{count} full, to {word}" for count in counts for word in ("uncached", "converged"))])
    for name in dict.fromkeys(name for name, _ in rows):
        cells = [_figures(rows[name, count], to) for count in counts for to in (UNCACHED, CONVERGED)]
        lines.append(line([name, *cells]))
    where = f"{data['prompts']} unseen prompts, {data['steps']} steps, {data['machine']}"
    return "\n".join([*lines, "", f"PSNR in dB: mean / 5th percentile ({where})."])


def svdcache_paired() -> str:
    """Whether fitted gains, a subspace and finer sites help over plain first order on the same schedule."""
    data = latest("svdcache")
    rows, counts = _rows(data), _counts(data)
    lines = head(["gain over the default", *(f"{count} full steps" for count in counts)])
    for name in COMPARED:
        found = [gain(rows[name, count], rows[DEFAULT, count], UNCACHED, "mean") for count in counts]
        lines.append(line([name, *(signed(one) if one else "" for one in found)]))
    return "\n".join([*lines, "", "Paired differences of PSNR in dB, with 95 % intervals over prompts."])


def _rows(data: dict[str, Any]) -> dict[tuple[str, int], Row]:
    """By name and number of full steps: controls, then the others."""
    found = sorted(data["rows"], key=lambda row: row["kind"] != "control")
    return {(row["name"], row["full"]): row for row in found}


def _counts(data: dict[str, Any]) -> list[int]:
    return sorted({row["full"] for row in data["rows"]}, reverse=True)


def _best_control(rows: dict[tuple[str, int], Row], count: int) -> Row:
    found = [row for (_, at), row in rows.items() if at == count and row["kind"] == "control"]
    return max(found, key=lambda row: row["psnr_on_seen"])


def _figures(row: Row, to: str) -> str:
    each = [told(row, to, statistic) for statistic in ("mean", "5th percentile")]
    return " / ".join(f"{one:.1f}" for one in each if one is not None)


def _over(row: Row, control: Row) -> str:
    found = gain(row, control, UNCACHED, "mean")
    return "" if row is control or found is None else signed(found)
