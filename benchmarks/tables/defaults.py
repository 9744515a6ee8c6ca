"""Whether one default holds across models, and what choosing on each of them gains."""

from __future__ import annotations

import itertools
from collections import defaultdict
from statistics import fmean
from typing import Any

from ditstack.maths.fidelity import paired
from lines import head, line, signed
from results import newest

Row = dict[str, Any]
MODELS = {
    "tiny": "embedded FLUX",
    "dit": "twin-dit, DDIM, guidance 4",
    "dit@1.5": "twin-dit, DDIM, guidance 1.5",
    "pixart": "twin-pixart, DPM-Solver++, guidance 4.5",
    "hunyuanvideo": "twin-hunyuanvideo",
    "flux2": "twin-flux2, guidance 3",
}
NOT_YET = "Not measured yet; `python benchmarks/defaults.py` writes these figures."
WHOLE = "whole space, order 1"
LOSS = 0.3
"""Decibels by which something may be behind and still not lose."""


def defaults() -> str:
    """Every model at every setting: the default, and what else gains over it on prompts that nothing was chosen on."""
    data = newest("defaults")
    if data is None:
        return NOT_YET
    lines = head(["", "full steps", "default", "even", "best control", "`schedule: fitted`", "what it chose"])
    for (model, steps, full), rows in _settings(data).items():
        default, fitted = rows["default"], rows.get("fitted")
        cells = [MODELS.get(model, model), f"{full} of {steps}", f"{fmean(default['psnr_each']):.1f}"]
        cells += [_over(rows.get("even"), default), _control(rows, default), _over(fitted, default)]
        lines.append(line([*cells, _told(fitted, default) if fitted else ""]))
    where = f"{_prompts(data)}, {data['machine']}"
    note = f"PSNR in dB to the uncached pictures, and paired gains over the default with 95 % intervals ({where})."
    return "\n".join([*lines, "", f"{note} Settings were chosen on {data['fitted_on']} other prompts."])


def defaults_verdict() -> str:
    """How often each loses to the others, and what the choice gains where the default is weakest."""
    data = newest("defaults")
    if data is None:
        return NOT_YET
    settings = {key: rows for key, rows in _settings(data).items() if "fitted" in rows}
    lines = head(["", "settings", "behind the default", "behind even", "behind the best control"])
    for name in ("default", "even", "fitted"):
        cells = []
        for other in ("default", "even", "control"):
            gains = {key: _gain(rows.get(name), _other(rows, other)) for key, rows in settings.items()}
            known = {key: one[0] for key, one in gains.items() if one is not None}
            behind = [key for key, one in known.items() if one < -LOSS]
            said = sum(bool(settings[key]["fitted"].get("beside")) for key in behind)
            says = f"; of these it says so in {said}" if name == "fitted" and other == "control" and behind else ""
            cells.append("" if name == other else f"{len(behind)} of {len(known)}{says}")
        lines.append(line([f"`schedule: {name}`" if name == "fitted" else name, str(len(settings)), *cells]))
    return "\n".join([*lines, "", f"*Behind* is more than {LOSS} dB of the mean. {_worst(settings)}"])


def defaults_again() -> str:
    """The choice with other prompts and other noise, beside the first one."""
    again = newest("defaults_again")
    return NOT_YET if again is None else _once_more(again, "again", "other noise, and other calibration prompts")


def defaults_more() -> str:
    """The choice on more calibration prompts, beside the first one."""
    more = newest("defaults_more")
    if more is None:
        return NOT_YET
    return _once_more(more, f"on {more['fitted_on']} prompts", "the same prompts and noise, more calibration prompts")


def _once_more(data: dict[str, Any], how: str, what: str) -> str:
    first = newest("defaults")
    if first is None:
        return NOT_YET
    lines = head(["", "full steps", "over", "the first time", how, f"chosen {how}"])
    once = _settings(first)
    for key, rows in _settings(data).items():
        if "fitted" not in rows:
            continue
        for other, word in (("default", "the default"), ("even", "even"), ("control", "the best control")):
            gains = [_gain(one.get("fitted"), _other(one, other)) for one in (once[key], rows)]
            cells = [MODELS[key[0]], f"{key[2]} of {key[1]}"] if other == "default" else ["", ""]
            told = _told(rows["fitted"], rows["default"]) if other == "default" else ""
            lines.append(line([*cells, word, *("" if one is None else signed(one) for one in gains), told]))
    note = f"Paired gains of `schedule: fitted` in dB, with 95 % intervals ({_prompts(data)}; {what})."
    return "\n".join([*lines, "", note])


def defaults_judges() -> str:
    """What foretells the constants' gains on unseen prompts: calibration's pictures, or its final latents."""
    data, found = newest("judges"), newest("defaults")
    if data is None or found is None:
        return NOT_YET
    judges = ("latents", "pictures")
    lines = head(["", *(f"{what} by {by}" for what in ("off", "pairs in order") for by in judges)])
    for (model, steps, full), rows in _settings(found).items():
        judged = {row["name"]: row for row in data["rows"] if row["model"] == model and row["name"] in rows}
        if (steps, full) == (data["steps"], data["full"]) and judged:
            seen = {name: _short(rows, name) for name in judged}
            told = [
                {name: fmean(row[by]) - fmean(judged["default"][by]) for name, row in judged.items()} for by in judges
            ]
            cells = [f"{fmean(abs(one[name] - seen[name]) for name in seen if name != 'default'):.2f}" for one in told]
            cells += [f"{_in_order(one, seen):.0%}" for one in told]
            lines.append(line([MODELS[model], *cells]))
    count = len({row["name"] for row in data["rows"]})
    note = f"{count} constants at {data['full']} full steps of {data['steps']}: by how many dB their gain on 16"
    return "\n".join(
        [*lines, "", f"{note} calibration prompts is off that on others, and how many pairs it puts in order."]
    )


def _in_order(told: dict[str, float], seen: dict[str, float]) -> float:
    """The share of pairs that stand as they are seen to; those that are equal there tell nothing."""
    pairs = [(a, b) for a, b in itertools.combinations(seen, 2) if abs(seen[a] - seen[b]) > 1e-6]
    return fmean((told[a] - told[b]) * (seen[a] - seen[b]) > 0 for a, b in pairs)


def _worst(settings: dict[Any, dict[str, Row]]) -> str:
    rivals = {}
    for key, rows in settings.items():
        others = [_gain(_other(rows, name), rows["default"]) for name in ("even", "control", "fitted")]
        rivals[key] = max(one[0] for one in others if one is not None)
    count = -(-len(settings) // 3)
    worst = sorted(rivals, key=lambda key: -rivals[key])[:count]
    gains = [_gain(settings[key]["fitted"], settings[key]["default"]) for key in worst]
    mean = fmean(one[0] for one in gains if one is not None)
    everywhere = [_gain(rows["fitted"], rows["default"]) for rows in settings.values()]
    overall = fmean(one[0] for one in everywhere if one is not None)
    return (
        f"In the third of the settings ({count}) where the default is furthest behind the best row, `schedule: fitted` "
        f"gains {mean:+.1f} dB over it; over all settings {overall:+.1f} dB."
    )


def defaults_left_out() -> str:
    """The constants that are best on all models but one, on the one that was left out."""
    data = newest("defaults")
    return NOT_YET if data is None else _left_out(data)


def defaults_left_out_again() -> str:
    """The same with other prompts and other noise."""
    data = newest("defaults_again")
    return NOT_YET if data is None else _left_out(data)


def _left_out(data: dict[str, Any]) -> str:
    found: dict[str, dict[tuple[int, int], dict[str, Row]]] = defaultdict(dict)
    for (model, steps, full), rows in _settings(data).items():
        if any(row["kind"] == "constant" for row in rows.values()):
            found[model][steps, full] = rows
    if len(found) < 2:
        return NOT_YET
    lines = head(["left out", "chosen on the others, by the worst of them", "over the default on it", "fitted on it"])
    for model, settings in found.items():
        others = [rows for name, each in found.items() if name != model for rows in each.values()]
        names = set.intersection(*({name for name, row in rows.items() if _constant(row)} for rows in others))
        best = max(sorted(names), key=lambda name: min(_short(rows, name) for rows in others))
        gains = [_short(rows, best) for rows in settings.values()]
        fitted = [_short(rows, "fitted") for rows in settings.values() if "fitted" in rows]
        told = f"{fmean(gains):+.1f} ({min(gains):+.1f} to {max(gains):+.1f})"
        own = f"{fmean(fitted):+.1f} ({min(fitted):+.1f} to {max(fitted):+.1f})" if fitted else ""
        lines.append(line([MODELS.get(model, model), best, told, own]))
    where = ", ".join(sorted({f"{full} of {steps}" for each in found.values() for steps, full in each}))
    fewer = min(row["prompts"] for row in data["rows"])
    note = f"Mean gain in dB over its settings, and the least and the most; on {fewer} prompts, at {where}."
    return "\n".join([*lines, "", note])


def subspace() -> str:
    """Forms of the principal part, and what each gains over first order in the whole space."""
    data = newest("subspace")
    if data is None:
        return "Not measured yet; `python benchmarks/subspace.py` writes these figures."
    rows = {(row["name"], row["model"]): row for row in data["rows"]}
    models = [one for one in MODELS if (WHOLE, one) in rows]
    lines = head(["", *(MODELS[one] for one in models)])
    for name in dict.fromkeys(name for name, _ in rows):
        cells = []
        for model in models:
            row, whole = rows.get((name, model)), rows[WHOLE, model]
            cells.append(f"{fmean(whole['psnr_each']):.1f} dB" if row is whole else _over(row, whole))
        lines.append(line([name, *cells]))
    prompts = sorted({row["prompts"] for row in data["rows"]})
    where = f"{'/'.join(map(str, prompts))} unseen prompts, {data['machine']}"
    note = f"{data['full']} full steps of {data['steps']}, graded, in steps. Paired gains over the first row in dB"
    return "\n".join([*lines, "", f"{note}, with 95 % intervals ({where})."])


def _settings(data: dict[str, Any]) -> dict[tuple[str, int, int], dict[str, Row]]:
    """Rows by name, by model, steps and full steps, in the order of the page."""
    found: dict[tuple[str, int, int], dict[str, Row]] = defaultdict(dict)
    for row in data["rows"]:
        found[row["model"], row["steps"], row["full"]][row["name"]] = row
    order = sorted(found, key=lambda key: (list(MODELS).index(key[0]), -key[1], -key[2]))
    return {key: found[key] for key in order if "default" in found[key]}


def _constant(row: Row) -> bool:
    return row["kind"] in ("constant", "default", "even")


def _prompts(data: dict[str, Any]) -> str:
    """How many prompts were measured on; of models that had fewer, by name."""
    counts = {
        model: max(row["prompts"] for row in data["rows"] if row["model"] == model)
        for model in {row["model"] for row in data["rows"]}
    }
    most = max(counts.values())
    fewer = [f"{count} of {MODELS[model].partition(',')[0]}" for model, count in counts.items() if count < most]
    return ", ".join([f"{most} unseen prompts", *sorted(fewer)])


def _short(rows: dict[str, Row], name: str) -> float:
    """Mean gain over the default, on the prompts that both were measured on."""
    gain = _gain(rows[name], rows["default"])
    assert gain is not None
    return gain[0]


def _gain(row: Row | None, other: Row | None) -> tuple[float, float, float] | None:
    if row is None or other is None:
        return None
    count = min(len(row["psnr_each"]), len(other["psnr_each"]))
    return paired(row["psnr_each"][:count], other["psnr_each"][:count])


def _over(row: Row | None, other: Row) -> str:
    gain = _gain(row, other)
    return "" if gain is None else signed(gain)


def _other(rows: dict[str, Row], name: str) -> Row | None:
    """A row, or the control that was best on other prompts."""
    if name != "control":
        return rows.get(name)
    controls = [row for row in rows.values() if row["kind"] == "control"]
    return max(controls, key=lambda row: fmean(row["psnr_on_others"])) if controls else None


def _control(rows: dict[str, Row], default: Row) -> str:
    best = _other(rows, "control")
    if best is None:
        return ""
    title = best["name"].removeprefix("control: ")
    if title == "DDIM" and not best["model"].startswith("dit"):
        title = "its own solver"  # a diffusion process without a scheduler in its recipe is called by DDIM's name
    return f"{title}: {_over(best, default)}"


def _told(fitted: Row, default: Row) -> str:
    """What was chosen, and whether calibration said that a plain solver does better."""
    said = fitted.get("beside") or ""
    ahead, how = said.partition("evaluations by ")[2].partition(" gain")[0], "ahead"
    if "(not clear)" in said:
        how = "ahead, not clearly"
    return _chosen(fitted, default) + (f"; says that {ahead} without a cache is {how}" if ahead else "")


def _chosen(fitted: Row, default: Row) -> str:
    if fitted["psnr_each"] == default["psnr_each"]:
        return "the default"
    chosen = fitted["chosen"]
    counted = "in sigma" if chosen["coordinate"] == "sigma" else "in steps"
    return f"{', '.join(map(str, chosen['schedule']))}; order {chosen['order']} {counted}"
