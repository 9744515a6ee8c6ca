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
INT8 = "int8+cache"


def promise_cost() -> str:
    """The cheapest setting that is proved, by what is promised: of the cache, of plain solvers, and of all of them."""
    data = latest("promise")
    titles = [f"{title} ({_counts(data, kind)})" for kind, title in SOLVERS.items()]
    titles += [f"int8 and the cache ({_counts(data, INT8)})"] * bool(_rows(data, INT8, "calibration"))
    kinds = [*SOLVERS, *([INT8] if _rows(data, INT8, "calibration") else [])]
    lines = head(["promised", "cache", "MACs", "broken", "fresh", *titles, "all, put in order"])
    every = _in_order(data)
    for psnr in (one["psnr"] for one in data["guards"]):
        found = _cheapest(data, _rows(data, "cache", "calibration"), psnr)
        cells = ["none", "1", "", ""] if found is None else _cells(data, found, psnr)
        plain = [_told(_cheapest(data, _rows(data, kind, "calibration"), psnr)) for kind in kinds]
        lines.append(line([f"{psnr} dB", *cells, *plain, _named(_cheapest(data, every, psnr))]))
    count = len(_rows(data, "cache", "calibration")[0]["psnr_each"])
    allowed = conformal.most_broken(count, data["share"], data["confidence"])
    order = ", ".join(_title(row["name"]) for row in every)
    return "\n".join(
        [
            *lines,
            "",
            f"Share {data['share']}, confidence {data['confidence']}; {count} calibration pictures, of which {allowed} "
            f"may be broken, {STEPS} Euler steps with guidance 3, {data['machine']}. MACs are a share of the plain "
            "model's. Fresh: broken pictures among those that were made at that setting. Solvers: on the model's own "
            "sigmas, the safest first; of 160 pictures none may be broken. All, put in order on 32 further pictures as "
            f"`tries` does it: {order}.",
        ]
    )


def promise_guard() -> str:
    """The cheapest guard for each promise, chosen on the pictures that it is judged by."""
    data = latest("promise")
    names = ("late forecast error", "agreement of two runs")
    lines = head(["promised", "no guard", *(f"guard: {name}" for name in names)])
    for one in data["guards"]:
        plain = _cheapest(data, _rows(data, "cache", "calibration"), one["psnr"])
        lines.append(line([f"{one['psnr']} dB", _share(plain), *(_guard(one["best"].get(name)) for name in names)]))
    note = (
        "MACs as a share of the plain model's, everything that is made again included. Which runs, and how many are "
        "made again, was chosen on the same pictures, in the guards' favour. Where nothing is made again, the cheaper "
        "setting keeps the promise on these pictures by itself, behind one that did not: chance, which fixed sequences "
        "rule out."
    )
    return "\n".join([*lines, "", note])


def promise_others() -> str:
    """What becomes of captions of a word that calibration left out."""
    data = latest("promise")
    lines = head(["left out", "fresh captions", "broken", "drift told of", "of the first 32 alone"])
    for one in data["others"]:
        for kind in ("with", "without"):
            found = one[kind]
            fired = [name for name, told in found["fired"].items() if told]
            early = "yes" if found["fired_of_32"] else "no"
            cells = [f"{found['broken']} of {found['pictures']}", ", ".join(fired) or "no", early]
            lines.append(line([one["word"], f"{kind} it", *cells]))
    return "\n".join([*lines, "", "Certified for 30 dB without the word: one full step in five, .21 of the MACs."])


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


def _told(found: dict[str, Any] | None) -> str:
    if found is None:
        return "none"
    kind, _, number = found["name"].rpartition("-")
    return f"{found['macs_ratio']:.2f} ({f'1 in {number}' if kind == INT8 else f'{number} steps'})"


def _named(found: dict[str, Any] | None) -> str:
    return "none" if found is None else f"{found['macs_ratio']:.2f} ({_title(found['name'])})"


def _title(name: str) -> str:
    kind, _, number = name.rpartition("-")
    bits, _, kind = kind.rpartition("+")
    what = f"one full step in {number}" if kind == "cache" else f"{number} by {SOLVERS[kind]}"
    return f"{bits}, {what}" if bits else what


def _cells(data: dict[str, Any], found: dict[str, Any], psnr: float) -> list[str]:
    broken, count = (f(found["psnr_each"]) for f in (lambda each: sum(one < psnr for one in each), len))
    fresh = [row["psnr_each"] for row in _rows(data, "cache", "fresh") if row["name"] == found["name"]]
    told = f"{sum(one < psnr for one in fresh[0])} of {len(fresh[0])}" if fresh else "not made"
    return [f"one full step in {found['name'][-1]}", f"{found['macs_ratio']:.2f}", f"{broken} of {count}", told]


def _share(found: dict[str, Any] | None) -> str:
    return "none" if found is None else f"{found['macs_ratio']:.2f}"


def _guard(best: dict[str, Any] | None) -> str:
    if best is None:
        return ""
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
