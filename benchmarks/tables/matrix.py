"""What the committed matrix holds."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

from results import RESULTS, matrix_file


def matrix() -> str:
    """How many combinations were measured, what came of them, and where they are."""
    data = json.loads(matrix_file().read_text())
    cells = [one for one in data["cells"] if one["status"] != "control"]
    beside = len(data["cells"]) - len(cells)
    states = ", ".join(f"{count} {word}" for word, count in Counter(one["status"] for one in cells).items())
    axes = " x ".join(f"{len(words)} words at {stage}" for stage, words in data["axes"].items())
    where = matrix_file().with_suffix(".md").relative_to(RESULTS.parents[1])
    gate = ", ".join(f"{name} {limit:g}" for name, limit in data["gate"].items())
    every = math.prod(len(words) for words in data["axes"].values())
    shown = f"all {every} combinations" if len(cells) == every else f"{len(cells)} of the {every} combinations"
    return (
        f"Of the embedded model [{shown}]({where}) of {axes} are measured on "
        f"{len(data['prompts'])} prompts: {states}. A cell is ok where the worse end of its interval keeps {gate} and "
        "it is surely above its control, the plain model with as much work by the best of six solvers; idle where a "
        f"stage of it did nothing ({_idle(cells)}). The {beside} controls are rows and points among the others."
    )


def _idle(cells: list[dict[str, Any]]) -> str:
    """Which words did nothing, and in how many cells."""
    found: Counter[str] = Counter()
    for cell in cells:
        for reason in cell["reasons"] if cell["status"] == "idle" else ():
            if reason.startswith("idle: "):
                word = cell["words"][reason.removeprefix("idle: ").partition(" ")[0]]
                lora = cell["words"].get("distill", "none")
                found[word if lora == "none" else f"{word} on the {lora}"] += 1
    return ", ".join(f"{name} in {count} cells" for name, count in found.items()) or "none was"
