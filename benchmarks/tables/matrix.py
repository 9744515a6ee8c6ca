"""What the committed matrix holds."""

from __future__ import annotations

import json
from collections import Counter

from results import RESULTS, matrix_file


def matrix() -> str:
    """How many combinations were measured, and where they are."""
    data = json.loads(matrix_file().read_text())
    states = ", ".join(f"{count} {word}" for word, count in Counter(one["status"] for one in data["cells"]).items())
    axes = " x ".join(f"{len(words)} words at {stage}" for stage, words in data["axes"].items())
    where = matrix_file().with_suffix(".md").relative_to(RESULTS.parents[1])
    return (
        f"Of the embedded model [all {len(data['cells'])} combinations]({where}) of {axes} are measured on "
        f"{len(data['prompts'])} prompts: {states}."
    )
