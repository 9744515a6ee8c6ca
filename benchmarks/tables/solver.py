"""A fitted sampler of few evaluations beside the plain model's solvers and our cache at the same evaluations."""

from __future__ import annotations

from typing import Any

from lines import head, line, signed
from peers_rows import CONVERGED, UNCACHED, Row, gain, told
from results import latest

FITTED = "fitted sampler"


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
