"""SVD-Cache beside its controls, and what its paper's equation may mean."""

from __future__ import annotations

from typing import Any

from lines import head, line, signed
from peers_rows import CONVERGED, UNCACHED, Row, gain, told
from results import latest, newest

DEFAULT = "graded: order 1 in steps (default)"
ALONE = "no cache, "
RECIPE = "average, .1 on the old value; basis from calibration; every branch of every block"
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
        found = [(rows.get((name, count)), to) for count in counts for to in (UNCACHED, CONVERGED)]
        cells = [_figures(row, to) if row else "" for row, to in found]
        lines.append(line([f"**{name}**" if name == RECIPE else name, *cells]))
    where = f"{data['prompts']} unseen prompts, {data['steps']} steps, {data['machine']}"
    note = "In bold what the recipe `tiny-none-native-svdcache-paper` is."
    return "\n".join(
        [*lines, "", f"PSNR in dB: mean / 5th percentile ({where}). {note}", "", _best_reading(rows, counts)]
    )


def _best_reading(rows: dict[tuple[str, int], Row], counts: list[int]) -> str:
    """Of the readings that are the paper's average, the best at each count, and where the recipe is another."""
    said = []
    for count in counts:
        found = {name: row for (name, at), row in rows.items() if at == count and name.startswith("average")}
        best = max(found, key=lambda name: told(found[name], UNCACHED, "mean") or 0.0)
        if best == RECIPE:
            said.append(f"the recipe at {count} full steps")
        else:
            over = gain(found[best], found[RECIPE], UNCACHED, "mean")
            said.append(f"{best} at {count} ({signed(over)} over the recipe)" if over else f"{best} at {count}")
    return f"The best reading as an average, by its mean to the uncached pictures: {'; '.join(said)}."


def svdcache_solvers() -> str:
    """The default cache over several solvers and numbers of steps, beside the same solvers without a cache."""
    data = newest("svdcache_solvers")
    if data is None:
        return "Not measured yet; `python benchmarks/svdcache.py --solvers` writes these figures."
    rows, plain = _rows(data), _rows(latest("svdcache"))
    counts = [
        count for count in _counts(data) if any(at == count and row["kind"] == "ours" for (_, at), row in rows.items())
    ]
    solvers = list(dict.fromkeys(name for (name, _), row in rows.items() if row["kind"] == "control"))
    first = data["prompts"]  # of the same prompts, which may be more there
    few = {(f"{ALONE}{one}", n): _first(plain[f"control: {one}", n], first) for one in solvers for n in counts}
    on_all = f"svdcache over Euler, {data['steps']} steps"  # the default of the table of every predictor
    few |= {(on_all, n): _first(plain[DEFAULT, n], first) for n in counts if (DEFAULT, n) in plain}
    more = _without(rows, solvers)
    rows = {**few, **rows}  # the solvers with so few steps are the controls of the table of every predictor
    titles = [f"{count} evaluations, to {word}" for count in counts for word in ("uncached", "converged")]
    lines = head(["", *titles])
    shown = [(name, at) for name, at in rows if at in counts]
    for name in sorted({name for name, _ in shown}, key=lambda name: (not name.startswith(ALONE), name)):
        found = [(rows.get((name, count)), to) for count in counts for to in (UNCACHED, CONVERGED)]
        lines.append(line([name, *(_figures(row, to) if row else "" for row, to in found)]))
    where = f"{data['prompts']} unseen prompts, {data['machine']}"
    note = f"PSNR in dB: mean / 5th percentile ({where}). Uncached: {data['steps']} Euler steps; converged: 400."
    return "\n".join([*lines, "", note, "", *more, "", *_best_buys(rows, counts)])


def _first(row: Row, count: int) -> Row:
    """A row on its first prompts alone."""
    return {key: value[:count] if isinstance(value, list) else value for key, value in row.items()}


def _without(rows: dict[tuple[str, int], Row], solvers: list[str]) -> list[str]:
    """The solvers without a cache at more evaluations."""
    more = sorted({at for (name, at) in rows if name in solvers})
    lines = head(["no cache, to uncached; to converged", *(f"{count} evaluations" for count in more)])
    for title in solvers:
        found = [rows.get((title, count)) for count in more]
        each = ["; ".join(_figures(row, to) for to in (UNCACHED, CONVERGED)) if row else "" for row in found]
        lines.append(line([title, *each]))
    return lines


def _best_buys(rows: dict[tuple[str, int], Row], counts: list[int]) -> list[str]:
    """At each number of evaluations the best of all rows, and the best solver alone beside it."""
    lines = []
    for count in counts:
        for to, word in ((UNCACHED, "uncached"), (CONVERGED, "converged")):
            here = {name: row for (name, at), row in rows.items() if at == count and to in row}
            for statistic in ("mean", "5th percentile"):
                best = max(here, key=lambda name: told(here[name], to, statistic) or 0.0)
                alone = [name for name in here if name.startswith(ALONE)]
                other = max(alone, key=lambda name: told(here[name], to, statistic) or 0.0)
                over = gain(here[best], here[other], to, statistic)
                beside = f", {signed(over)} over {other}" if over and best != other else ""
                lines.append(f"- {count} evaluations, {statistic} to {word}: {best}{beside}")
    return ["The best of all rows, and what it gains over the best solver alone:", "", *lines]


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
