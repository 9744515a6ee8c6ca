"""A fitted sampler of few evaluations beside the plain model's solvers and our cache at the same evaluations."""

from __future__ import annotations

from typing import Any

from lines import head, line, signed
from peers_rows import CONVERGED, UNCACHED, Row, gain, told
from results import latest

FITTED, CARRIED = "fitted sampler", "fitted elsewhere"
GATES = (30, 35, 40, 45, 50)


def solver() -> str:
    """The embedded model's table."""
    return _table("tiny")


def solver_dit() -> str:
    """That of twin-dit."""
    return _table("dit")


def solver_pixart() -> str:
    """That of twin-pixart."""
    return _table("pixart")


def solver_memory() -> str:
    """What the gradient of a fit holds and computes on a FLUX of 12 blocks."""
    data = latest("solver_memory")
    held = [f"{data[name] / 2**20:.1f} MiB" for name in ("one_bytes", "fit_bytes")]
    sizes = f"{data['blocks']}-block FLUX, width {data['width']}, {data['tokens']} tokens, fp32"
    lines = head([sizes, "one evaluation, checkpointed", f"{data['evaluations']} evaluations, as a fit runs them"])
    lines.append(line(["bytes alive at the peak, weights left out", *held]))
    share = f"{data['one_flops'] / data['forward_flops']:.2f} forward passes an evaluation"
    return "\n".join([*lines, line(["multiply-adds", share, "the same"])])


def solver_gates() -> str:
    """For every gate, what keeps it with the fewest evaluations, of each kind."""
    rows = [row for row in latest("solver")["rows"] if row["model"] == "tiny" and CONVERGED in row]
    kinds = {
        "fitted sampler": FITTED,
        "svdcache": "svdcache (",
        "svdcache over it": "svdcache over",
        "LoRA": "few-step",
        "another solver": "control",
    }
    lines = head(["5th percentile to converged, at least", *kinds])
    for gate in GATES:
        lines.append(line([f"{gate} dB", *(_fewest(rows, word, gate) for word in kinds.values())]))
    counts = ", ".join(str(one) for one in sorted({row["full"] for row in rows}))
    return "\n".join([*lines, "", f"Of the rows above, which have {counts} evaluations; - where none keeps it."])


def solver_tuned() -> str:
    """What `tune` chose for every gate."""
    data = latest("tuned")
    lines = head(["mean PSNR, at least", "chosen", "multiply-adds", "times as fast", "mean / 5 %"])
    for row in data["rows"]:
        if row["chosen"] is None:
            lines.append(line([f"{row['gate']} dB", "out of reach", "", "", ""]))
            continue
        figures = [f"{row['macs']:.2f}", f"{row['speedup']:.1f}", f"{row['psnr']:.1f} / {row['psnr_p5']:.1f}"]
        lines.append(line([f"{row['gate']} dB", row["chosen"], *figures]))
    where = f"{data['prompts']} prompts, {data['machine']}"
    return "\n".join([*lines, "", f"To the plain model's pictures of {data['steps']} steps ({where})."])


def _fewest(rows: list[Row], word: str, gate: float) -> str:
    low = [
        (row["full"], row["name"])
        for row in rows
        if row["name"].startswith(word) and (told(row, CONVERGED, "5th percentile") or 0.0) >= gate
    ]
    return f"{min(low)[0]}" if low else "-"


def solver_carried() -> str:
    """A fitted sampler on other weights, guidance and sizes than it was fitted to."""
    data = latest("solver_carried")
    names = ["UniPC, order 2", "Adams-Bashforth 2", CARRIED, "fitted here"]
    rows: dict[tuple[str, str], Row] = {(row["where"], row["name"]): row for row in data["rows"]}
    lines = head(["", *names[:2], "fitted at guidance 3, 64 px, unrounded", "fitted again here", "won by that"])
    for where in dict.fromkeys(row["where"] for row in data["rows"]):
        found = [rows.get((where, name)) for name in names]
        said = [_told(one, CONVERGED, 2) if one else "" for one in found]
        won = gain(found[3], found[2], CONVERGED, "mean") if found[2] and found[3] else None
        lines.append(line([where, *said, signed(won) if won else ""]))
    where = f"{data['prompts']} unseen prompts, {data['evaluations']} evaluations, {data['machine']}"
    return "\n".join(
        [*lines, "", f"PSNR in dB to the unrounded model's converged pictures, mean / 5th percentile ({where})."]
    )


def _table(model: str) -> str:
    """Mean, 5th percentile and worst to both references, and the fitted sampler's paired gain over each row."""
    data = latest("solver")
    mine = [row for row in data["rows"] if row["model"] == model]
    lines = head(
        ["evaluations", "", "to converged: mean / 5 % / worst", "fitted over it", "to its own pictures: mean / 5 %"]
    )
    for count in sorted({row["full"] for row in mine}, reverse=True):
        rows = sorted((row for row in mine if row["full"] == count), key=lambda row: row["name"] != FITTED)
        fitted = rows[0] if rows[0]["name"] == FITTED else None
        lines += [_line(row, fitted) for row in rows]
    where = f"{data['prompts']} unseen prompts, {data['machine']}"
    return "\n".join(
        [*lines, "", f"PSNR in dB ({where}); gains of the mean, paired over prompts, with 95 % intervals."]
    )


def _line(row: Row, fitted: Row | None) -> str:
    over: Any = None if fitted in (None, row) else gain(fitted, row, CONVERGED, "mean")
    name = f"**{row['name']}**" if row is fitted else row["name"]
    said = [_told(row, CONVERGED, 3), signed(over) if over else "", _told(row, UNCACHED, 2)]
    return line([str(row["full"]), name, *said])


def _told(row: Row, to: str, count: int) -> str:
    each = [told(row, to, statistic) for statistic in ("mean", "5th percentile", "worst")[:count]]
    return " / ".join(f"{one:.1f}" for one in each if one is not None)
