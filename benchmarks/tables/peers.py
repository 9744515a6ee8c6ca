"""Our caches beside their peers and controls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lines import head, line
from peers_rows import gain, ours
from results import latest

Rows = dict[tuple[str, int], dict[str, Any]]
LEFT_TO_DOCS = ("reuse (FORA)", "fewer UniPC steps", "cache-dit DBCache + FoCa", "cache-dit DBCache + DMD")


def peers_short() -> str:
    """PSNR for the first screen, and where we do not win."""
    data = latest("peers")
    rows, counts = _rows(data), _counts(data)
    lines = head(["PSNR in dB", *(f"{count} full steps of {data['steps']}" for count in counts)])
    for name in dict.fromkeys(name for name, _ in rows if name not in LEFT_TO_DOCS):
        lines.append(line([name, *(_cell(rows, name, count, "psnr") for count in counts)]))
    where = f"{data['prompts']} unseen prompts, guidance {data['resolved']['sampler']['guidance']:g}, {data['machine']}"
    note = "In brackets: our default (bold) minus this row, paired over prompts, with its 95 % interval."
    return "\n".join([*lines, "", f"To the uncached pictures ({where}).", note, _verdict(rows, counts)])


def peers_full() -> str:
    """Every row with PSNR and SSIM."""
    data = latest("peers")
    rows, out = _rows(data), []
    for count in _counts(data):
        columns = ["PSNR in dB", "SSIM", "ran in full", "MACs", "setting"]
        out += [f"### {count} full steps of {data['steps']}", "", *head(["", *columns])]
        for name in dict.fromkeys(name for name, at in rows if at == count):
            row = rows[name, count]
            figures = [_cell(rows, name, count, "psnr"), _cell(rows, name, count, "ssim")]
            out.append(line([name, *figures, _ran(row), f"{100 * row['macs_ratio']:.1f} %", row["setting"]]))
        out.append("")
    not_run = [f"- {name}: {why}" for name, why in data["not_run"].items()]
    return "\n".join([*out, _verdict(rows, _counts(data)), "", "Not run:", "", *not_run])


def peers_speed() -> str:
    """Seconds of denoising beside ours."""
    data = latest("peers_speed")
    out = []
    for model, one in data["models"].items():
        title = f"{MODELS[model]}, {one['full']} full steps of {one['steps']}"
        out += head([title, "seconds", "ours / theirs", "ran in full"])
        for name, row in one["rows"].items():
            middle, low, high = row["ours_over_theirs"]
            ratio = "" if name == "svdcache" else f"{middle:.3f} ({low:.3f} to {high:.3f})"
            ran = one["steps"] if name == "no cache" else row["full"]
            out.append(line([name, f"{row['seconds']:.3f}", ratio, f"{ran:g}"]))
        middle, low, high = one["ours_over_full_share"]
        share = f"Ours takes {middle:.3f} ({low:.3f} to {high:.3f}) x (full steps / steps) of the time without a cache."
        out += ["", share, ""]
    rounds = ", ".join(f"{one['rounds']} ({MODELS[name]})" for name, one in data["models"].items())
    note = f"Medians over interleaved rounds, {rounds}, on {data['machine']}, with 95 % intervals over rounds."
    return "\n".join([*out, note])


MODELS = {"tiny": "embedded model", "flux": "12-block FLUX, width 768, 1100 tokens"}


def _rows(data: dict[str, Any]) -> Rows:
    """Rows by name and number of full steps, ours first."""
    order = ("ours", "peer", "control")
    found = sorted(data["rows"], key=lambda row: order.index(row["kind"]))
    return {(row["name"], row["asked"]): row for row in found}


def _counts(data: dict[str, Any]) -> list[int]:
    return sorted({row["asked"] for row in data["rows"]}, reverse=True)


def _cell(rows: Rows, name: str, count: int, measure: str) -> str:
    if (name, count) not in rows:
        return ""
    row, digits = rows[name, count], 1 if measure == "psnr" else 4
    value = f"{row[measure][0]:.{digits}f}"
    default = ours(rows.values(), count)
    if row is default:
        return f"**{value}**"
    mean, low, high = gain(default, row, measure)
    return f"{value} ({mean:+.{digits}f}; {low:+.{digits}f} to {high:+.{digits}f})"


def _ran(row: dict[str, Any]) -> str:
    mean, least, most = row["full"]
    return f"{mean:g}" if least == most else f"{mean:.2f} ({least:g} to {most:g})"


def _verdict(rows: Rows, counts: list[int]) -> str:
    """Says plainly which peers and controls our default does not beat, and by how much."""
    said = {count: list(_unbeaten(rows, count)) for count in counts}
    if not any(said.values()):
        return "\nOur default beats every peer and control, in PSNR and in SSIM, with intervals that exclude zero."
    clauses = [f"at {count} full steps {', '.join(names)}" for count, names in said.items() if names]
    return f"\nOur default does not clearly beat: {'; '.join(clauses)}. It beats every other row in PSNR and SSIM."


def _unbeaten(rows: Rows, count: int) -> Iterator[str]:
    others = [(name, row) for (name, at), row in rows.items() if at == count and row["kind"] != "ours"]
    for name, row in others:
        for measure, label, digits in (("psnr", "PSNR", 1), ("ssim", "SSIM", 4)):
            mean, low, high = gain(ours(rows.values(), count), row, measure)
            if low <= 0:
                yield f"{name} in {label} ({mean:+.{digits}f}; {low:+.{digits}f} to {high:+.{digits}f})"
