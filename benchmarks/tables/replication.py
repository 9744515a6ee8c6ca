"""The papers' claims on the twins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ditstack.maths.fidelity import paired
from lines import head, line, signed
from peers_rows import UNCACHED, told
from results import newest

Row = dict[str, Any]
Column = tuple[str, Callable[[Row, list[Row]], str]]
SETTING = ("twin", "steps", "guidance", "seed", "size", "on")
TITLES = {"tiny": "the embedded model", "dit": "twin-dit", "pixart": "twin-pixart", "flux2": "twin-flux2"}
TITLES["hunyuanvideo"] = "twin-hunyuanvideo"


def replication_1() -> str:
    """ICC on twin-dit."""
    return _settings(newest("replication_1"), [PSNR, OVER_STEPS, MACS, PUBLISHED, AGREE, IS, FID], _without)


def replication_1_components() -> str:
    """What single components are worth."""
    data = newest("replication_1")
    rows = [row for row in (data or {"rows": []})["rows"] if "without" in row["name"]]
    lines = head(["", "PSNR: mean / 5 %", "over all components"])
    return "\n".join([*lines, *(line([row["name"], PSNR[1](row, []), signed(row["gain"])]) for row in rows)])


def replication_2() -> str:
    """ICC on twin-pixart."""
    return _settings(newest("replication_2"), [PSNR, OVER_STEPS, MACS, PUBLISHED, AGREE, IS, FID])


def replication_3() -> str:
    """SVD-Cache on twin-flux2 and twin-hunyuanvideo."""
    return _settings(newest("replication_3"), [PSNR, OVER_BEST, LESS, TIME, AGREE])


def replication_3_directions() -> str:
    """What the principal and the other directions of the features do over time and over prompts."""
    data = newest("replication_3")
    found = [row for row in (data or {"rows": []})["rows"] if "features" in row]
    lines = head(["", "directions", "energy", "change in 5 steps", "left of it by first order"])
    for row in found:
        for one in row["features"]["groups"]:
            cells = [f"{100 * one['energy']:.1f} %", f"{100 * one['change']:.1f} %", f"{one['missed']:.2f}"]
            lines.append(line([_setting(row), one["directions"], *cells]))
    notes = [
        f"{_setting(row)}: {row['features']['rank']} of {row['features']['width']} directions hold 85 % of the energy; "
        "bases of two prompts share "
        + ", ".join(f"{100 * one:.0f} % at rank {rank}" for rank, one in row["features"]["same_basis"].items())
        for row in found
    ]
    said = "Change: of its own energy. Left by first order: of the squared change that plain reuse misses; below 1 a"
    return "\n".join([*lines, "", f"{said} forecast pays. " + "; ".join(notes) + "."])


def replication_4() -> str:
    """What stands with SVD-Cache."""
    return _settings(newest("replication_4"), [PSNR, AGAINST, MACS, AGREE])


def replication_5() -> str:
    """Patterns of layers and steps."""
    data = newest("replication_5")
    said = [
        f"{TITLES[row['twin']]}, {row['name'].partition(': ')[2]}: {row['said'].partition(': ')[2]}"
        for row in (data or {"rows": []})["rows"]
        if row.get("said")
    ]
    notes = "".join(f"\n- {one}" for one in dict.fromkeys(said))
    table = _settings(data, [PSNR, AGAINST, OVER_BEST, MACS])
    return f"{table}\n\nWhat calibration said of each pattern that it was to learn:\n{notes}" if said else table


def replication_7() -> str:
    """What recalibration brings on rounded weights."""
    return _settings(newest("replication_7"), [PSNR, AGAINST, MACS])


def replication_6() -> str:
    """What factors are fitted on."""
    return _settings(newest("replication_6"), [PSNR, AGAINST])


def _settings(data: Row | None, columns: list[Column], wanted: Callable[[Row], bool] = lambda row: True) -> str:
    """A table for each setting, in the order in which they were measured."""
    if data is None:
        return "Not measured yet."
    parts: dict[str, list[Row]] = {}
    for row in filter(wanted, data["rows"]):
        parts.setdefault(_setting(row), []).append(row)
    tables = []
    for title, rows in parts.items():
        lines = head([f"{title}, {rows[0]['prompts']} prompts", *(name for name, _ in columns)])
        lines += [line([row["name"], *(cell(row, rows) for _, cell in columns)]) for row in _ordered(rows)]
        tables.append("\n".join(lines))
    drawn = [
        f"{row['fid_like_real']:.0f} of {row['prompts']}"
        for row in data["rows"]
        if "fid_like_real" in row and IS in columns
    ]
    real = f" Rendered pictures are themselves at a FID-like distance of {', '.join(dict.fromkeys(drawn))}."
    note = f"PSNR in dB to the uncached pictures; gains are paired, with 95 % intervals ({data['machine']})."
    return "\n\n".join([*tables, note + (real if drawn else "")])


def _setting(row: Row) -> str:
    after = f" after {row['samples']:,} samples" if row.get("samples") else ""
    on = ", with the few-step LoRA" if row["on"] != "{}" else ""
    size = f", {row['size']} pixels" if row["size"] else ""
    guided = f", guidance {row['guidance']:g}" if row["guidance"] > 1 else ""
    return f"{TITLES[row['twin']]}{after}{on}{size}, {row['steps']} steps{guided}, seed {row['seed']}"


def _ordered(rows: list[Row]) -> Iterator[Row]:
    """What has no label first, then label by label."""
    labels = list(dict.fromkeys(_label(row) for row in rows))
    for label in sorted(labels, key=lambda one: (one != "", labels.index(one))):
        yield from (row for row in rows if _label(row) == label)


def _label(row: Row) -> str:
    """What stands before the colon, such as a rank; rows with the same one are of the same work."""
    return row["name"].partition(": ")[0] if ": " in row["name"] else ""


def _without(row: Row) -> bool:
    return "without component" not in row["name"]


def _psnr(row: Row, rows: list[Row]) -> str:
    mean, low = (told(row, UNCACHED, statistic) for statistic in ("mean", "5th percentile"))
    return "" if mean is None or low is None or mean == float("inf") else f"{mean:.1f} / {low:.1f}"


def _over(words: tuple[str, ...]) -> Callable[[Row, list[Row]], str]:
    """The gain over the best of the rows of the same work whose name holds one of some words."""

    def cell(row: Row, rows: list[Row]) -> str:
        controls = [
            one for one in rows if _label(one) == _label(row) != "" and any(word in one["name"] for word in words)
        ]
        if not controls or any(word in row["name"] for word in words):
            return ""
        best = max(controls, key=lambda one: told(one, UNCACHED, "mean") or 0.0)
        return signed(paired(row["psnr_each"], best["psnr_each"]))

    return cell


def _published(row: Row, rows: list[Row]) -> str:
    """A full step counted as one, as it is where what it keeps is not projected."""
    if "calibrated" not in row["ran"] or "calibrated" not in row["shares"]:
        return ""
    spent = sum(count * min(1.0, row["shares"].get(kind, 1.0)) for kind, count in row["ran"].items())
    return f"{spent / row['steps']:.2f}"


PSNR: Column = ("PSNR: mean / 5 %", _psnr)
OVER_STEPS: Column = ("over fewer of its own steps", _over((": control",)))
OVER_BEST: Column = ("over the best control", _over((": control", ": best control")))
AGAINST: Column = (
    "gain",
    lambda row, rows: f"{signed(row['gain'])} over {row['against']}" if "gain" in row and row["gain"][0] < 1e9 else "",
)
MACS: Column = ("MACs", lambda row, rows: f"{row['macs_ratio']:.2f}")
PUBLISHED: Column = ("MACs as published", _published)
LESS: Column = ("fewer MACs", lambda row, rows: f"{1 / row['macs_ratio']:.2f} x")
TIME: Column = (
    "faster",
    lambda row, rows: "{:.2f} x ({:.2f} to {:.2f})".format(*row["speedup"]) if "speedup" in row else "",
)
AGREE: Column = ("agreement", lambda row, rows: f"{100 * row['agree']:.0f} %" if "agree" in row else "")
IS: Column = ("IS-like", lambda row, rows: f"{row['is_like']:.1f}" if "is_like" in row else "")
FID: Column = ("FID-like", lambda row, rows: f"{row['fid_like']:.0f}" if "fid_like" in row else "")
