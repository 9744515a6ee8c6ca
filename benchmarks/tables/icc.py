"""ICC: its factors beside the controls, and what each part of recalibration brings on rounded weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ditstack.maths.fidelity import paired
from lines import head, line, signed
from results import latest

Row = dict[str, Any]
WHOLE = "compensated, ICC refitted"


def icc_factors() -> str:
    """PSNR and MACs of every kind of factors, with the paired gain over the row that each is compared with."""
    return _groups("PSNR of the factors", lambda group: group.startswith("N="))


def icc_controls() -> str:
    """The best factors of each interval and rank beside the best control of their work, and who is surely ahead."""
    rows = [row for row in latest("icc")["rows"] if row["group"].startswith("N=")]
    lines = head(["", "best factors", "best control", "factors over the control"])
    for group, rank in dict.fromkeys(
        (row["group"], row["name"].partition(":")[0]) for row in rows if ":" in row["name"]
    ):
        here = [row for row in rows if row["group"] == group and row["name"].startswith(f"{rank}:")]
        controls = [row for row in here if "control" in row["name"]]
        factors = max((row for row in here if row not in controls), key=lambda row: row["psnr"][0])
        control = max(controls, key=lambda row: row["psnr"][0])
        over = paired(factors["psnr_each"], control["psnr_each"])
        names = [row["name"].removeprefix(f"{rank}: ") for row in (factors, control)]
        each = [f"{name}: {row['psnr'][0]:.1f}" for name, row in zip(names, (factors, control), strict=True)]
        lines.append(line([f"{group}, {rank}", *each, signed(over)]))
    return "\n".join(
        [*lines, "", "Controls take at least the work of `rrr` at that rank; the best of all rows that there are."]
    )


def icc_short() -> str:
    """For the first screen: what refitting to rounded weights brings, like beside like."""
    data = latest("icc")
    rows = {(row["group"], row["name"]): row for row in data["rows"]}
    lines = head(["PSNR to the unquantized, uncached pictures", "naive", "recalibrated", "gain, 95 % interval"])
    for (group, name), row in rows.items():
        if " N=" in group and name.startswith(WHOLE):
            naive = rows[group, row["against"]]
            label = group.replace(" N=", ", ICC with one full step in ") + name.removeprefix(WHOLE)
            lines.append(line([label, f"{naive['psnr'][0]:.1f}", f"{row['psnr'][0]:.1f}", _gain(row)]))
    where = f"{data['prompts']} unseen prompts, {data['steps']} steps, {data['machine']}"
    return "\n".join([*lines, "", f"Ranks are an eighth of each linear's width ({where})."])


def icc_quantized() -> str:
    """The same for stacks on rounded weights: what compensation and the refit of ICC bring, each alone and both."""
    return _groups("PSNR on rounded weights", lambda group: " N=" in group)


def icc_predictor() -> str:
    """The same for SVD-Cache's basis and gains."""
    return _groups("PSNR of SVD-Cache", lambda group: group.endswith("SVD-Cache"))


def _groups(title: str, wanted: Callable[[str], bool]) -> str:
    data = latest("icc")
    lines = head([title, "dB", "gain, 95 % interval", "over", "MACs of an uncached run", "a calibrated step's share"])
    for row in data["rows"]:
        if wanted(row["group"]):
            lines.append(line(_cells(row)))
    where = f"{data['prompts']} unseen prompts, {data['steps']} steps, {data['machine']}"
    note = f"{data['calibration']} other prompts; gains are paired over prompts."
    return "\n".join(
        [*lines, "", f"PSNR to the unquantized, uncached pictures ({where}). Factors were fitted on {note}"]
    )


def _cells(row: Row) -> list[str]:
    share = row["calibrated_share"]
    return [
        f"{row['group']}, {row['name']}",
        f"{row['psnr'][0]:.2f}",
        _gain(row),
        row.get("against", ""),
        f"{row['macs_of_uncached']:.2f}",
        f"{share:.2f}" if share else "",
    ]


def _gain(row: Row) -> str:
    return signed(row["gain"]) if "gain" in row else ""


def icc_memory() -> str:
    """What ICC keeps for each token and block, and what a calibrated step multiplies."""
    data = latest("icc_memory")
    width, rank, blocks = data["width"], data["rank"], data["blocks"]
    sizes = f"{blocks}-block FLUX, width D = {width}, {data['tokens']} tokens, rank r = {rank}"
    lines = head([sizes, "values kept a token and block", "9 D + 6 r", "a calibrated step's share of MACs"])
    for row in data["rows"]:
        name = row["dtype"].removeprefix("torch.")
        lines.append(line([name, f"{row['kept']:.0f}", f"{data['allowed']}", f"{row['calibrated_share']:.3f}"]))
    return "\n".join(
        [*lines, "", "Values are counted in the model's dtype; B C(x) is kept in fp32 also beside bfloat16."]
    )
