"""A fitted sampler of few evaluations beside the plain model's solvers and our cache at the same evaluations."""

from __future__ import annotations

from lines import head, line, signed
from peers_rows import CONVERGED, UNCACHED, Row, gain, told
from results import latest

FITTED = "fitted sampler"


def solver() -> str:
    """Mean, 5th percentile and worst to both references, and the fitted sampler's paired gain over each row."""
    data = latest("solver")
    rows: dict[tuple[str, int], Row] = {(row["name"], row["full"]): row for row in data["rows"]}
    lines = head(
        ["evaluations", "", "to converged: mean / 5 % / worst", "fitted over it", "to 50 Euler steps: mean / 5 %"]
    )
    for count in sorted({row["full"] for row in data["rows"] if row["name"] == FITTED}, reverse=True):
        fitted = rows[FITTED, count]
        for (name, at), row in rows.items():
            if at == count and CONVERGED in row:
                over = None if row is fitted else gain(fitted, row, CONVERGED, "mean")
                said = [_told(row, CONVERGED, 3), signed(over) if over else "", _told(row, UNCACHED, 2)]
                lines.append(line([str(count), f"**{name}**" if row is fitted else name, *said]))
    where = f"{data['prompts']} unseen prompts, {data['machine']}"
    return "\n".join(
        [*lines, "", f"PSNR in dB ({where}); gains of the mean, paired over prompts, with 95 % intervals."]
    )


def _told(row: Row, to: str, count: int) -> str:
    each = [told(row, to, statistic) for statistic in ("mean", "5th percentile", "worst")[:count]]
    return " / ".join(f"{one:.1f}" for one in each if one is not None)
