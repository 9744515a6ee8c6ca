"""Our caches beside their peers and controls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lines import head, line, signed
from peers_rows import CONVERGED, STATISTICS, UNCACHED, Row, broken, chosen_control, gain, ours, told
from results import latest

Rows = dict[tuple[str, int], Row]
LEFT_TO_DOCS = ("reuse (FORA)", "cache-dit DBCache + FoCa", "cache-dit DBCache + DMD", "diffusers TaylorSeer")
REFERENCES = {UNCACHED: "uncached", CONVERGED: "converged"}
SHOWN = ("mean", "5th percentile")


def peers_short() -> str:
    """Mean and low end to both references, for the first screen, and where we are not ahead."""
    data = latest("peers")
    rows, counts = _rows(data), _counts(data)
    titles = [f"{count} full, to {word}" for count in counts for word in REFERENCES.values()]
    lines = head(["PSNR in dB: mean / 5th percentile", *titles])
    for name in dict.fromkeys(name for name, _ in rows if name not in LEFT_TO_DOCS):
        cells = [_cell(rows, name, count, to) for count in counts for to in REFERENCES]
        lines.append(line([name, *cells]))
    where = f"{data['prompts']} unseen prompts, guidance {data['resolved']['sampler']['guidance']:g}, {data['machine']}"
    note = (
        f"Uncached: the model's own {data['steps']} Euler steps; converged: 400 of them ({where}). Fewer steps are the "
        "controls: the plain model with as many passes of the network, at its own shift. Bold: our default, and the "
        "control that was best on other prompts."
    )
    return "\n".join([*lines, "", note, "", *peers_gain().splitlines(), "", _ahead(rows, counts)])


def peers_gain() -> str:
    """What our default gains over the best control."""
    data = latest("peers")
    rows, counts = _rows(data), _counts(data)
    lines = head(["default over the best control, dB", *(f"{count} full steps" for count in counts)])
    for to, word in REFERENCES.items():
        for name in SHOWN:
            found = [gain(ours(rows.values(), n), chosen_control(rows.values(), n), to, name) for n in counts]
            lines.append(line([f"{name}, to {word}", *(signed(one) if one else "" for one in found)]))
        late = [_in_hindsight(rows, count, to) for count in counts]
        lines.append(line([f"mean, to {word}, over the best on these very prompts", *map(signed, late)]))
    return "\n".join([*lines, "", "With 95 % intervals, prompts drawn together."])


def _in_hindsight(rows: Rows, count: int, to: str) -> tuple[float, float, float]:
    """Over the control whose mean is the highest on the prompts that are reported."""
    controls = [row for (_, at), row in rows.items() if at == count and row["kind"] == "control" and to in row]
    found = gain(ours(rows.values(), count), max(controls, key=lambda row: told(row, to, "mean") or 0), to, "mean")
    assert found is not None
    return found


def peers_full() -> str:
    """Every row with its distribution."""
    data = latest("peers")
    rows, out = _rows(data), []
    for count in _counts(data):
        out += [f"### {count} full steps of {data['steps']}", ""]
        out += head(["PSNR in dB", "mean", "5 %", "worst", "of the MSE", "< 30 dB", "default minus this", *COSTS])
        for name in dict.fromkeys(name for name, at in rows if at == count):
            out.append(line([name, *_figures(rows, name, count)]))
        out.append("")
    not_run = [f"- {name}: {why}" for name, why in data["not_run"].items()]
    return "\n".join([*out, _verdict(rows, _counts(data)), "", "Not run:", "", *not_run])


COSTS = ("converged: mean", "5 %", "SSIM", "ran in full", "MACs", "setting")


def _figures(rows: Rows, name: str, count: int) -> Iterator[str]:
    row, default = rows[name, count], ours(rows.values(), count)
    for statistic in ("mean", "5th percentile", "worst", "PSNR of the mean squared error"):
        yield _number(told(row, UNCACHED, statistic))
    yield f"{100 * broken(row):.0f} %"
    over = gain(default, row, UNCACHED, "mean")
    yield signed(over) if over and row is not default else ""
    for statistic in SHOWN:
        yield _number(told(row, CONVERGED, statistic))
    yield f"{sum(row['ssim_each']) / len(row['ssim_each']):.4f}"
    yield _ran(row)
    yield f"{100 * row['macs_ratio']:.1f} %"
    yield row["setting"]


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
        out += ["", share, "", *_by_depth(model, one)]
    rounds = ", ".join(f"{one['rounds']} ({MODELS[name]})" for name, one in data["models"].items())
    note = f"Medians over interleaved rounds, {rounds}, on {data['machine']}, with 95 % intervals over rounds."
    return "\n".join([*out, note])


def _by_depth(model: str, one: dict[str, Any]) -> list[str]:
    """What cache-dit's mask, which runs its first block on every step, costs by depth; reckoned for FLUX's."""
    rows, steps, full = one["rows"], one["steps"], one["full"]
    whole, theirs = rows["no cache"]["seconds"], rows["cache-dit DBCache"]["seconds"]
    skipped = (theirs * steps / whole - full) / (steps - full)
    deep = (full + (steps - full) * skipped * BLOCKS[model] / DEEP) / steps * whole
    return [
        f"cache-dit's static mask runs one block of {BLOCKS[model]} on every step here: its skipped step takes "
        f"{100 * skipped:.0f} % of a full one. Of FLUX's {DEEP} blocks it would take {BLOCKS[model]} / {DEEP} of that, "
        f"and ours / theirs be {rows['svdcache']['seconds'] / deep:.2f} (reckoned, not measured).",
        "",
    ]


BLOCKS, DEEP = {"tiny": 9, "flux": 12}, 57
MODELS = {"tiny": "embedded model", "flux": "12-block FLUX, width 768, 1100 tokens"}


def _rows(data: dict[str, Any]) -> Rows:
    """Rows by name and number of full steps: ours, then controls, then peers."""
    order = ("ours", "control", "peer")
    found = sorted(data["rows"], key=lambda row: (order.index(row["kind"]), _place(row["name"])))
    return {(row["name"], row["asked"]): row for row in found}


def _place(name: str) -> int:
    return 0 if name == "svdcache (default)" else 1


def _counts(data: dict[str, Any]) -> list[int]:
    return sorted({row["asked"] for row in data["rows"]}, reverse=True)


def _cell(rows: Rows, name: str, count: int, to: str) -> str:
    if (name, count) not in rows or to not in rows[name, count]:
        return ""
    row = rows[name, count]
    text = " / ".join(_number(told(row, to, statistic)) for statistic in SHOWN)
    best = (ours(rows.values(), count), chosen_control(rows.values(), count))
    return f"**{text}**" if any(row is one for one in best) else text


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _ran(row: Row) -> str:
    mean, least, most = row["full"]
    return f"{mean:g}" if least == most else f"{mean:.2f} ({least:g} to {most:g})"


def _verdict(rows: Rows, counts: list[int]) -> str:
    """Says plainly which rows, ours among them, our default is not clearly above, and by which figure of which."""
    said = {count: list(_unbeaten(rows, count)) for count in counts}
    found = [f"- at {count} full steps {'; '.join(one)}" for count, one in said.items() if one]
    measured = "in mean, low end and mean squared error, to both references"
    if not found:
        return f"Our default is above every other row {measured}, with intervals that exclude zero."
    lead = f"Where our default is not clearly above another row ({measured}; minus: behind):"
    return "\n".join([lead, "", *found, "", "It is above every other row in every other of these figures."])


def _ahead(rows: Rows, counts: list[int]) -> str:
    """For the first screen: who is not clearly behind our default in the mean, and who is ahead in the low end."""
    clauses = []
    for count in counts:
        default = ours(rows.values(), count)
        others = [(name, row) for (name, at), row in rows.items() if at == count and row is not default]
        for to, word in REFERENCES.items():
            found = {name: gain(default, row, to, "mean") for name, row in others}
            near = [f"{name} {signed(one)}" for name, one in found.items() if one and one[1] <= 0]
            clauses += [f"- not clearly below its mean at {count}, to {word}: {'; '.join(near)}"] if near else []
            for statistic in ("5th percentile", "PSNR of the mean squared error"):
                low = {name: gain(default, row, to, statistic) for name, row in others}
                above = [f"{name} {signed(one)}" for name, one in low.items() if one and one[0] < -HAIR]
                clauses += [f"- above its {statistic} at {count}, to {word}: {'; '.join(above)}"] if above else []
    if not clauses:
        return "No other row, ours or theirs, reaches our default's mean, or is above its low end."
    lead = "Where another row, ours or theirs, reaches our default or is ahead of it (the default minus that row):"
    return "\n".join(
        [
            lead,
            "",
            *clauses,
            "",
            "Every other row is clearly below it in the mean, to both references where they were measured.",
        ]
    )


HAIR = 0.005
"""dB that two decimals do not show."""


def _unbeaten(rows: Rows, count: int) -> Iterator[str]:
    default = ours(rows.values(), count)
    for name, row in ((name, row) for (name, at), row in rows.items() if at == count and row is not default):
        ties = []
        for to, word in REFERENCES.items():
            for statistic in [one for one in STATISTICS if one != "worst"]:
                found = gain(default, row, to, statistic)
                if found is not None and found[1] <= 0:
                    short = {"5th percentile": "5 %", "PSNR of the mean squared error": "MSE"}.get(statistic, statistic)
                    ties.append(f"{short} to {word} {signed(found)}")
        if ties:
            yield f"{name}: {', '.join(ties)}"
