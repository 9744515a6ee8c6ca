"""Mixed schedules beside pure caches at the same MACs."""

from __future__ import annotations

from typing import Any

from ditstack.maths.fidelity import paired
from lines import head, line, signed
from peers_rows import UNCACHED, told
from results import latest

Row = dict[str, Any]
AT_BUDGET = ("control", "svdcache", "icc", "mixed")


def mixed() -> str:
    """Everything at a quarter of the MACs, and the best schedule's paired gain over it."""
    data = latest("mixed")
    rows = {(row["group"], row["name"]): row for row in data["rows"]}
    best = rows["mixed", "searched"]
    lines = head(["", "PSNR: mean / 5 %", "MACs", "the searched mixed schedule beside it"])
    for wanted in AT_BUDGET:
        for (group, name), row in rows.items():
            if group == wanted:
                gain = "" if row is best else _gain(best, row)
                title = f"**{group}: {name}**" if row.get("chosen") else f"{group}: {name}"
                figures = f"{row['psnr'][0]:.1f} / {told(row, UNCACHED, '5th percentile'):.1f}"
                lines.append(line([title, figures, _macs(row), gain]))
    where = f"{data['prompts']} unseen prompts, {data['steps']} steps, {data['machine']}"
    schedules = [f"{row['name']}: `{row['cache']['schedule']}`" for row in rows.values() if row["group"] == "mixed"]
    note = f"PSNR in dB to the uncached pictures ({where}); in bold the control that was best on other prompts."
    return "\n".join([*lines, "", f"{note} {'; '.join(schedules)}."])


def mixed_parts() -> str:
    """What each part of the best schedule with calibrated steps contributes."""
    data = latest("mixed")
    whole = next(row for row in data["rows"] if row["name"] == "searched, with calibrated steps")
    lines = head(["instead", "PSNR", "MACs", "change"])
    lines += [
        line([row["name"], f"{row['psnr'][0]:.1f}", _macs(row), _gain(row, whole)])
        for row in data["rows"]
        if row["group"] == "parts"
    ]
    return "\n".join(lines)


def mixed_attention() -> str:
    """Attention on calibrated steps: computed anew, used again, or extrapolated."""
    rows = {row["name"]: row for row in latest("mixed")["rows"] if row["group"] == "attention"}
    lines = head(["", "PSNR", "MACs", "change"])
    for name, row in rows.items():
        anew = rows[f"{name.rpartition(' ')[0]} recompute"]
        change = "" if row is anew else _gain(row, anew)
        lines.append(line([name, f"{row['psnr'][0]:.1f}", _macs(row), change]))
    return "\n".join(lines)


def _macs(row: Row) -> str:
    return f"{100 * row['macs_ratio']:.1f} %"


def _gain(row: Row, other: Row) -> str:
    return signed(paired(row["psnr_each"], other["psnr_each"]))
