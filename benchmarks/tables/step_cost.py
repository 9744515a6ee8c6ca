"""What a step of each kind costs."""

from __future__ import annotations

from lines import head, line
from results import latest


def step_cost() -> str:
    """What a forecast step costs beside a full one."""
    data = latest("step_cost")
    seconds = data["seconds_per_step"]
    rows = [
        ("full step", f"{seconds['full']:.3f} s"),
        ("forecast step", f"{seconds['forecast']:.4f} s ({100 * data['forecast_share_of_full']:.2f} % of a full one)"),
        ("denoising speed-up", f"{data['speedup']:.2f}x of {data['steps_over_full_steps']:.1f}x steps / full steps"),
        ("features kept per branch", f"{data['features_kept_per_branch']:.0f}"),
    ]
    title = head([f"12-block FLUX, width {data['width']}, {data['tokens']} tokens", data["machine"]])
    return "\n".join([*title, *(line(list(row)) for row in rows)])
