"""What steps cost, how that grows, and the ladders on a GPU."""

from __future__ import annotations

from typing import Any

from lines import head, line
from results import newest

MIB = 2**20


def step_costs() -> str:
    """Each kind of step beside a full one."""
    data = newest("step_costs")
    if data is None:
        return _unmeasured("step_cost.py")
    plain = data["plain"]["seconds_per_step"]["full"]
    columns = ["step", "of a full step", "of its MACs' share", "times its floor", "run / plain run", "x full / steps"]
    found = head([f"{data['steps']} steps, full step {plain:.3f} s", *columns, "kept", "peak rise"])
    for row in data["rows"]:
        kind = next(kind for kind in row["kinds"] if kind != "full")
        mixes = kind == "calibrated"
        found.append(
            line(
                [
                    row["name"],
                    kind,
                    f"{100 * row['share_of_full'][kind]:.2f} %",
                    f"{row['over_macs'][kind]:.2f}x" if mixes else "",
                    _times(row["times_floor"], kind),
                    f"{row['of_plain']:.3f}",
                    "" if mixes else f"{row['over_full_share']:.3f}",
                    f"{row['kept_bytes'] / MIB:.0f} MiB",
                    f"{row['peak_rise'] / MIB:.0f} MiB",
                ]
            )
        )
    where = f"12-block FLUX, width {data['width']}, {data['tokens']} tokens, random weights; {data['machine']}."
    return "\n".join([*found, "", where])


def calibration_costs() -> str:
    """Building and calibrating on the embedded model."""
    data = newest("step_costs")
    if data is None:
        return _unmeasured("step_cost.py")
    found = head(["recipe", "prompts", "build", "calibrate"])
    for name, row in data["calibration"].items():
        found.append(line([f"`{name}`", str(row["prompts"]), f"{row['build']:.1f} s", f"{row['calibrate']:.1f} s"]))
    return "\n".join(found)


def scaling() -> str:
    """The exponents: 1 is linear in the size."""
    data = newest("scaling")
    if data is None:
        return _unmeasured("scaling.py")
    measures = {"full": "full step", "step": "this step", "own": "our own work", "kept_bytes": "memory kept"}
    found = head(["step", "against", *measures.values()])
    for kind, axis in {(row["kind"], row["axis"]): None for row in data["rows"]}:
        slopes = [data["exponents"].get(f"{kind} {axis} {measure}") for measure in measures]
        found.append(line([kind, axis, *("" if slope is None else f"{slope:.2f}" for slope in slopes)]))
    return "\n".join([*found, "", f"Width {data['width']}; {data['machine']}."])


def launches() -> str:
    """Launches and waits of every recipe for a GPU."""
    data = newest("launches")
    if data is None:
        return _unmeasured("launches.py")
    kinds = ("full", "calibrated", "forecast")
    found = head(["recipe", *(f"{kind} step" for kind in kinds), "waits in a step", "waits once"])
    for row in data["rows"]:
        steps = row["steps"]
        each = [str(steps[kind]["launches"]) if kind in steps else "" for kind in kinds]
        waits = sorted({steps[kind]["waits"] for kind in steps})
        name = f"`{row['recipe']}`" + (", weights not rounded" if row["weights"] == "not rounded" else "")
        found.append(line([name, *each, " or ".join(map(str, waits)), str(row["waits_once"])]))
    return "\n".join(found)


def gpu_flux() -> str:
    """FLUX.1-dev's ladder."""
    return _ladder("flux")


def gpu_hunyuanvideo() -> str:
    """HunyuanVideo's ladder."""
    return _ladder("hunyuanvideo")


def gpu_pixart() -> str:
    """PixArt's ladder."""
    return _ladder("pixart")


def gpu_dit() -> str:
    """DiT-XL/2's ladder."""
    return _ladder("dit")


def _ladder(case: str) -> str:
    data = newest(f"gpu_{case}")
    if data is None:
        return _unmeasured(f"gpu.py --case {case}")
    found = head(["stack", "steps", "denoising", "full", "calibrated", "forecast", "times the floor", "peak memory"])
    for row in data["rows"]:
        if "refused" in row:
            found.append(line([row["name"], str(row["steps"]), f"not run: {row['refused']}", *[""] * 5]))
            continue
        seconds, times = row.get("seconds_per_step", {}), row.get("times_floor", {})
        each = [f"{seconds[kind]:.4f} s" if kind in seconds else "" for kind in ("full", "calibrated", "forecast")]
        floors = ", ".join(f"{kind} {times[kind]:.2f}" for kind in times)
        memory = f"{row['peak_memory'] / 2**30:.1f} GiB"
        found.append(line([row["name"], str(row["steps"]), f"{row['seconds']:.3f} s", *each, floors, memory]))
    return "\n".join([*found, "", f"Random weights: speed only; {data['machine']}."])


def _times(floors: dict[str, Any], kind: str) -> str:
    return f"{floors[kind]:.2f}" if kind in floors else ""


def _unmeasured(script: str) -> str:
    return f"Not measured yet; `python benchmarks/{script}` writes these figures."
