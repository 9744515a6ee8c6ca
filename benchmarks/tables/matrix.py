"""What the committed matrix holds."""

from __future__ import annotations

import json
from collections import Counter

from results import RESULTS, matrix_file


def matrix() -> str:
    """How many combinations were measured, and where they are."""
    data = json.loads(matrix_file().read_text())
    cells = [one for one in data["cells"] if one["status"] != "control"]
    states = ", ".join(f"{count} {word}" for word, count in Counter(one["status"] for one in cells).items())
    axes = " x ".join(f"{len(words)} words at {stage}" for stage, words in data["axes"].items())
    where = matrix_file().with_suffix(".md").relative_to(RESULTS.parents[1])
    controls = any(one["status"] == "control" for one in data["cells"])
    return (
        f"Of the embedded model [all {len(cells)} combinations]({where}) of {axes} are measured on "
        f"{len(data['prompts'])} prompts: {states}." + ("" if controls else WITHOUT)
    )


WITHOUT = (
    ' These cells were measured without controls and without asking whether a stage did anything: of them "ok" says no '
    "more than a mean of 30 dB, which seven plain Euler steps keep too, and most heads of the sparse cells kept every "
    "block."
)
