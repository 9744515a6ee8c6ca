"""The few-step LoRA beside the plain model."""

from __future__ import annotations

from typing import Any

from lines import head, line
from results import latest


def few_step() -> str:
    """Agreement with the prompt and fidelity to the guided pictures, by steps."""
    data = latest("few_step")
    titles = ["", "passes of the transformer", "all attributes agree", "PSNR to the first row"]
    rows = [
        line([row["name"], str(row["passes"]), _percent(row["agree"]), _decibel(row["psnr"]) if "psnr" in row else ""])
        for row in data["rows"]
    ]
    asked = f"{data['prompts']} unseen prompts, {data['pictures']} pictures of each"
    return "\n".join([*head(titles), *rows, "", f"With 95 % intervals over prompts ({asked}, {data['machine']})."])


def few_step_by_attribute() -> str:
    """Which attributes agree."""
    data = latest("few_step")
    rows = [
        line([row["name"], *(f"{100 * row['by_attribute'][name]:.1f}" for name in data["attributes"])])
        for row in data["rows"]
    ]
    return "\n".join([*head(["agree, %", *data["attributes"]]), *rows])


def few_step_gain() -> str:
    """Paired differences, and whether they are beyond chance."""
    rows = []
    for row in latest("few_step")["rows"]:
        for other, gain in row["gain"].items():
            psnr = row["psnr_gain"].get(other)
            cells = [f"{row['name']}, over: {other}", _points(gain), _verdict(gain)]
            rows.append(line([*cells, *([_decibels(psnr), _verdict(psnr)] if psnr else ["", ""])]))
    titles = ["paired over prompts", "points of agreement", "", "dB of PSNR", ""]
    return "\n".join([*head(titles), *rows, "", "In brackets 95 % intervals."])


def few_step_effect() -> str:
    """Whether rounding leaves the LoRA's move of the output its direction."""
    rows = [
        line([row["weights"], f"{row['fused']:.3f}", f"{row['beside']:.3f}"]) for row in latest("few_step")["effect"]
    ]
    note = (
        "Cosine of the LoRA's move of the first step's output with its move on plain weights, as every run reports it."
    )
    return "\n".join([*head(["weights", "fused, then rounded", "beside rounded weights"]), *rows, "", note])


def _percent(share: list[float]) -> str:
    mean, low, high = (100 * one for one in share)
    return f"{mean:.1f} % ({low:.1f} to {high:.1f})"


def _decibel(psnr: list[float]) -> str:
    return f"{psnr[0]:.1f} ({psnr[1]:.1f} to {psnr[2]:.1f})"


def _points(gain: list[float]) -> str:
    mean, low, high = (100 * one for one in gain)
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"


def _decibels(gain: Any) -> str:
    return f"{gain[0]:+.1f} ({gain[1]:+.1f} to {gain[2]:+.1f})"


def _verdict(gain: Any) -> str:
    """What the interval says."""
    if gain[1] > 0:
        return "better"
    return "worse" if gain[2] < 0 else "no difference shown"
