"""The first screen of README: our default, the best control, the best peers, and where another row is ahead."""

from __future__ import annotations

from lines import head, line, signed
from peers_rows import CONVERGED, DEFAULT, UNCACHED, Row, chosen_control, gain, ours, told
from results import latest

REFERENCES = {UNCACHED: "uncached", CONVERGED: "converged"}
STATISTICS = {"mean": "mean", "5th percentile": "low end", "PSNR of the mean squared error": "squared error"}
FITTED = "fitted sampler"
PEERS = 2
"""So many are named: those with the highest means."""


def first_screen() -> str:
    """A row for each kind, what the default gains over the best control, and who is ahead of it where."""
    data = latest("peers")
    counts = sorted({row["asked"] for row in data["rows"]}, reverse=True)
    by_name = {(row["name"], row["asked"]): row for row in data["rows"]}
    lines = head(["PSNR in dB, mean / 5th percentile", *(f"{count} full of {data['steps']}" for count in counts)])
    lines.append(line(["**svdcache, our default**", *(_cell(ours(data["rows"], count)) for count in counts)]))
    controls = [chosen_control(data["rows"], count) for count in counts]
    lines.append(
        line(["no cache, by the solver best on other prompts", *(f"{_cell(one)} {_short(one)}" for one in controls)])
    )
    for name in _best_peers(data["rows"], counts):
        lines.append(line([name, *(_cell(by_name[name, count]) for count in counts)]))
    fitted = {row["full"]: row for row in latest("solver")["rows"] if (row["model"], row["name"]) == ("tiny", FITTED)}
    lines.append(line(["no cache, by a sampler fitted to the model", *(_cell(fitted[count]) for count in counts)]))
    for to, word in REFERENCES.items():
        for statistic, short in list(STATISTICS.items())[:2]:
            gains = [
                gain(ours(data["rows"], count), chosen_control(data["rows"], count), to, statistic) for count in counts
            ]
            title = f"default over no cache, {short}, to {word}"
            lines.append(line([title, *(signed(one) if one else "" for one in gains)]))
    note = (
        f"To the model's own uncached pictures, {data['steps']} Euler steps; *converged*: 400 of them. "
        f"{data['prompts']} unseen prompts, {data['machine']}, 95 % intervals; solver and settings were chosen on "
        "other prompts."
    )
    return "\n".join([*lines, "", note, "", _ahead(data["rows"], counts)])


def _ahead(rows: list[Row], counts: list[int]) -> str:
    """Every row that is above our default in some figure, to either reference; ours too."""
    found: dict[str, dict[str, list[int]]] = {}
    for row in sorted(rows, key=lambda one: (one["name"], -one["asked"])):
        default = ours(rows, row["asked"])
        for statistic, short in STATISTICS.items():
            if row is not default and any(_is_above(row, default, to, statistic) for to in REFERENCES):
                found.setdefault(row["name"], {}).setdefault(short, []).append(row["asked"])
    if not found:
        return "No other row, ours or theirs, is ahead of the default in mean, low end or squared error."
    said = [f"{name} in {', '.join(_at(*one) for one in where.items())}" for name, where in found.items()]
    return f"**Ahead of the default**, to one of the two references at least: {'; '.join(said)}."


def _is_above(row: Row, default: Row, to: str, statistic: str) -> bool:
    theirs, own = told(row, to, statistic), told(default, to, statistic)
    return theirs is not None and own is not None and theirs - own > HAIR


def _at(short: str, counts: list[int]) -> str:
    return f"{short} (at {' and '.join(map(str, counts))})"


HAIR = 0.005
"""dB that two decimals do not show."""


def _best_peers(rows: list[Row], counts: list[int]) -> list[str]:
    """Those that were measured at every count, by their means."""
    names = {row["name"] for row in rows if row["kind"] == "peer"}
    means = {
        name: [told(row, UNCACHED, "mean") or 0.0 for row in rows if row["name"] == name and row["asked"] in counts]
        for name in sorted(names)
    }
    whole = [name for name in means if len(means[name]) == len(counts)]
    return sorted(whole, key=lambda name: -sum(means[name]))[:PEERS]


def _cell(row: Row) -> str:
    figures = (told(row, UNCACHED, statistic) for statistic in ("mean", "5th percentile"))
    text = " / ".join("" if one is None else f"{one:.1f}" for one in figures)
    return f"**{text}**" if row["name"] == DEFAULT else text


def _short(row: Row) -> str:
    """The solver of a control."""
    return f"({row['name'].partition(': ')[2]})"
