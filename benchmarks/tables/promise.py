"""A promise about every picture: what it costs, what a guard would, other prompts, policies on rows, a killed batch."""

from __future__ import annotations

from typing import Any

from ditstack.calibration.certificate import Attempt
from ditstack.maths import conformal, fidelity
from ditstack.measure.promise.ladder import front
from lines import head, line, signed
from results import latest, newest

STEPS = 50
SOLVERS = {"euler": "fewer Euler steps", "dpm": "DPM-Solver++ 2M", "unipc": "UniPC, order 2"}
TWIN_SOLVERS = {"euler": "fewer steps by its own DPM-Solver++", "deis": "DEIS, order 2"}
INT8 = "int8+cache"

CHOSEN = ", chosen schedule"


def promise_cost() -> str:
    """The cheapest setting that is proved, by what is promised: of the cache, of plain solvers, and of all of them."""
    data = latest("promise")
    order = ", ".join(_title(row["name"]) for row in _in_order(data))
    note = (
        f"{STEPS} Euler steps with guidance 3. Solvers: on the model's own sigmas; of 160 pictures none may be broken. "
        f"All, put in order on 32 further pictures as `tries` does it: {order}."
    )
    return _cost(data, SOLVERS, note)


def promise_cost_pixart() -> str:
    """The same of twin-pixart with 50 steps."""
    return _cost(latest("promise_pixart"), TWIN_SOLVERS, f"{STEPS} DPM-Solver++ steps with guidance 4.5.")


def _cost(data: dict[str, Any], solvers: dict[str, str], note: str) -> str:
    titles = {kind: f"{title} ({_counts(data, kind)})" for kind, title in solvers.items()}
    if _rows(data, INT8, "calibration"):
        titles[INT8] = f"int8 and the cache ({_counts(data, INT8)})"
    every = _in_order(data)
    ordered = ["all, put in order"] * bool(every)
    lines = head(["promised", "cache", "MACs", "broken", "fresh", *titles.values(), *ordered])
    caches = _caches(data)
    for psnr in (one["psnr"] for one in data["guards"]):
        found = _cheapest(data, caches, psnr)
        cells = ["none", "1", "", ""] if found is None else _cells(data, found, psnr)
        plain = [_told(data, _cheapest(data, _rows(data, kind, "calibration"), psnr), psnr) for kind in titles]
        whole = [_named(_cheapest(data, every, psnr))] * bool(every)
        lines.append(line([f"{psnr} dB", *cells, *plain, *whole]))
    count = len(caches[0]["psnr_each"])
    allowed = conformal.most_broken(count, data["share"], data["confidence"])
    told = (
        f"Share {data['share']}, confidence {data['confidence']}; {count} calibration pictures, of which {allowed} "
        f"may be broken; settings are tested the safest first; {data['machine']}. MACs are a share of the plain "
        f"model's. Fresh: broken pictures among those that were made at that setting. {note}"
    )
    return "\n".join([*lines, "", told])


def promise_guard() -> str:
    """The cheapest guard for each promise, chosen on the pictures that it is judged by."""
    note = (
        "MACs as a share of the plain model's, everything that is made again included. Which runs, and how many are "
        "made again, was chosen on the same pictures, in the guards' favour. Where nothing is made again, the cheaper "
        "setting keeps the promise on these pictures by itself, behind one that did not: chance, which fixed sequences "
        "rule out."
    )
    return "\n".join([*_guards(latest("promise")), "", note])


def promise_guard_pixart() -> str:
    """The same of twin-pixart."""
    return "\n".join(_guards(latest("promise_pixart")))


def _guards(data: dict[str, Any]) -> list[str]:
    names = ("late forecast error", "agreement of two runs")
    lines = head(["promised", "no guard", *(f"guard: {name}" for name in names)])
    for one in data["guards"]:
        plain = _cheapest(data, _caches(data), one["psnr"])
        lines.append(line([f"{one['psnr']} dB", _share(plain), *(_guard(one["best"].get(name)) for name in names)]))
    return lines


def promise_others() -> str:
    """What becomes of captions of a word that calibration left out."""
    note = "Certified for 30 dB without the word: one full step in five, .21 of the MACs."
    return "\n".join([*_others(latest("promise")), "", note])


def promise_others_pixart() -> str:
    """The same of twin-pixart."""
    data = latest("promise_pixart")
    settings = ", ".join(dict.fromkeys(_title(one["setting"]) for one in data["others"]))
    return "\n".join([*_others(data), "", f"Certified for 30 dB without the word: {settings}."])


def _others(data: dict[str, Any]) -> list[str]:
    lines = head(["left out", "fresh captions", "broken", "drift told of", "of the first 32 alone"])
    for one in data["others"]:
        for kind in ("with", "without"):
            found = one[kind]
            fired = [name for name, told in found["fired"].items() if told]
            early = "yes" if found["fired_of_32"] else "no"
            cells = [f"{found['broken']} of {found['pictures']}", ", ".join(fired) or "no", early]
            lines.append(line([one["word"], f"{kind} it", *cells]))
    return lines


def promise_rows() -> str:
    """Policies that tell rows apart, beside the default with the nearest number of full steps."""
    data = latest("rows")
    lines = head(["", "MACs", "mean", "5th percentile", "worst", "beside", "mean over it", "5th percentile over it"])
    for model in dict.fromkeys(row["model"] for row in data["rows"]):
        rows = [row for row in data["rows"] if row["model"] == model]
        defaults = [row for row in rows if row["name"].startswith("svdcache")]
        lines.append(line([f"**{model}**, {rows[0]['prompts']} prompts", *[""] * 7]))
        for row in rows:
            near = min(defaults, key=lambda one: abs(one["macs_ratio"] - row["macs_ratio"]))
            lines.append(line(_policy(row, None if row in defaults else near)))
    note = f"PSNR in dB to the uncached {STEPS} steps; gains paired over prompts, 95 % intervals; {data['machine']}."
    return "\n".join([*lines, "", note])


def promise_guidance() -> str:
    """What the guidance cache gains with a schedule that was chosen, and how much of that is the schedule's."""
    rows = {(row["model"], row["name"]): row for row in latest("rows")["rows"]}
    lines = head(
        [
            "",
            "MACs",
            "mean",
            "5th percentile",
            "over the default, 10 full steps",
            "over the chosen schedule of both halves",
        ]
    )
    for model, name in rows:
        if not name.endswith(CHOSEN):
            continue
        row = rows[model, name]
        others = [rows[model, other] for other in ("svdcache, 10 full steps", f"both halves{CHOSEN}")]
        gains = [signed(fidelity.paired(row["psnr_each"], one["psnr_each"], fidelity.mean)) for one in others]
        own = row is others[1]
        lines.append(
            line([f"{model}: {name.removesuffix(CHOSEN)}", *_policy(row, None)[1:4], gains[0], "" if own else gains[1]])
        )
    return "\n".join(lines)


def promise_kill() -> str:
    """What a killed batch under a certificate came to."""
    data = newest("promise_kill")
    if data is None:
        return "Not measured yet."
    stops = ", ".join(str(stop["pictures"]) for stop in data["stops"])
    decided = "; ".join(f"{count} {decision}" for decision, count in data["decisions"].items())
    return (
        f"`{data['recipe']}`, {data['prompts']} rows, killed {len(data['stops'])} times at {stops} pictures: "
        f"{data['lines']} lines, {data['equal']} pictures equal in every byte to an undisturbed run's. {decided}. "
        f"{data['promise']['certificate']} ({data['machine']})."
    )


def _rows(data: dict[str, Any], kind: str, part: str) -> list[dict[str, Any]]:
    return [row for row in data["rows"] if row["name"].startswith(kind) and row["part"] == part]


def _caches(data: dict[str, Any]) -> list[dict[str, Any]]:
    """The cache by its full steps, the safest first."""
    rows = [*_rows(data, "cache", "calibration"), *_rows(data, "full", "calibration")]
    return sorted(rows, key=lambda row: -row["macs_ratio"])


def _counts(data: dict[str, Any], kind: str) -> str:
    """What was made of a solver or an interval: its steps, and on how many pictures."""
    rows = _rows(data, kind, "calibration")
    of = sorted({len(row["psnr_each"]) for row in rows}, reverse=True)
    steps = ", ".join(row["name"].rpartition("-")[2] for row in rows)
    return f"{steps}; {' and '.join(map(str, of))} pictures"


def _in_order(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Of all settings that were made, those than which nothing is as cheap and as safe on the pictures for that."""
    made = {row["name"]: row for row in data["rows"] if row["part"] == "calibration"}
    known = [row for row in data["rows"] if row["part"] == "order" and row["name"] in made]
    found = []
    for row in known:
        low, _, _ = fidelity.bootstrap(row["psnr_each"], draws=1, of=fidelity.low_end)
        told = {"changes": {"name": row["name"]}, "macs": row["macs_ratio"], "weights": 1 if INT8 in row["name"] else 2}
        found.append((Attempt(**told, pictures=len(row["psnr_each"]), broken=0, kept=True), low))
    return [made[one.changes["name"]] for one in front(found)]


def _cheapest(data: dict[str, Any], rows: list[dict[str, Any]], psnr: float) -> dict[str, Any] | None:
    """By fixed sequence: the last setting before the first that is not proved."""
    found = None
    for row in rows:
        each = row["psnr_each"]
        allowed = conformal.most_broken(len(each), data["share"], data["confidence"])
        if sum(one < psnr for one in each) > allowed:
            break
        found = row
    return found


def _told(data: dict[str, Any], found: dict[str, Any] | None, psnr: float) -> str:
    if found is None:
        return "none"
    kind, _, number = found["name"].rpartition("-")
    fresh = _fresh(data, found["name"], psnr)
    what = [f"1 in {number}" if kind == INT8 else f"{number} steps", *([f"fresh: {fresh}"] if fresh else [])]
    return f"{found['macs_ratio']:.2f} ({'; '.join(what)})"


def _fresh(data: dict[str, Any], name: str, psnr: float) -> str:
    """How many fresh pictures of a setting are broken; empty where none were made."""
    rows = [row["psnr_each"] for row in data["rows"] if row["part"] == "fresh" and row["name"] == name]
    return f"{sum(one < psnr for one in rows[0])} of {len(rows[0])}" if rows else ""


def _named(found: dict[str, Any] | None) -> str:
    return "none" if found is None else f"{found['macs_ratio']:.2f} ({_title(found['name'])})"


def _title(name: str) -> str:
    kind, _, number = name.rpartition("-")
    bits, _, kind = kind.rpartition("+")
    known = {"cache": f"one full step in {number}", "full": f"{number} full steps"}
    what = known.get(kind) or f"{number} by {SOLVERS[kind]}"
    return f"{bits}, {what}" if bits else what


def _cells(data: dict[str, Any], found: dict[str, Any], psnr: float) -> list[str]:
    broken, count = (f(found["psnr_each"]) for f in (lambda each: sum(one < psnr for one in each), len))
    fresh = _fresh(data, found["name"], psnr) or "not made"
    return [_title(found["name"]), f"{found['macs_ratio']:.2f}", f"{broken} of {count}", fresh]


def _share(found: dict[str, Any] | None) -> str:
    return "none" if found is None else f"{found['macs_ratio']:.2f}"


def _guard(best: dict[str, Any] | None) -> str:
    if best is None:
        return ""
    if best["macs_ratio"] == float("inf"):
        return "none"
    again = f"{best['share']:.0%} made again" if best["share"] else "nothing made again"
    return f"{best['macs_ratio']:.2f} ({again})"


def _policy(row: dict[str, Any], beside: dict[str, Any] | None) -> list[str]:
    each = row["psnr_each"]
    low, _, _ = fidelity.bootstrap(each, draws=1, of=fidelity.low_end)
    told = [row["name"], f"{row['macs_ratio']:.3f}", f"{sum(each) / len(each):.1f}", f"{low:.1f}", f"{min(each):.1f}"]
    if beside is None:
        return [*told, "", "", ""]
    gains = [fidelity.paired(each, beside["psnr_each"], of) for of in (fidelity.mean, fidelity.low_end)]
    return [*told, f"{beside['macs_ratio']:.3f}", *map(signed, gains)]
