"""Anchors: whether increments of linears count from the last full step or from a line through two, as the model says.

The line takes twice the memory. It is kept where prompts that nothing was fitted to gain clearly by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ditstack.calibration.choice import gained, halves
from ditstack.calibration.fits import Fit, Wish
from ditstack.maths.fidelity import decibels, paired

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ditstack.caching.linears import LowRankLinears
    from ditstack.pipeline.pipe import Pipe
    from ditstack.recipe.calibration import Calibration

ANCHORS = ("last", "line")
CHOSEN = ("anchor", "gain")
"""What stands beside the corrections."""
SAID = "anchor: "
TOGETHER = 4
"""Pictures of one run."""


def fit_anchored(pipe: Pipe, low_rank: LowRankLinears, calibration: Calibration, wish: Wish) -> dict[str, Tensor]:
    """Corrections fitted on one half of the prompts for each anchor; those of the anchor that the other half decides.

    Raises:
        BadPipeline: there are too few prompts.
    """
    _, deciding = halves(calibration)
    parts = [deciding[at : at + TOGETHER] for at in range(0, len(deciding), TOGETHER)]
    aims = [calibration.uncached_latents(part) for part in parts]
    fitted, scored = [], []
    for order, word in enumerate(ANCHORS):
        low_rank.order = order
        half = calibration.first(len(calibration.prompts) // 2, word)
        fitted.append(Fit(pipe, low_rank, half, wish).tensors())
        low_rank.take(fitted[-1])
        made = [calibration.latents(part) for part in parts]
        scored.append([one for pair in zip(made, aims, strict=True) for one in decibels(*pair)])
    gain = paired(scored[1], scored[0])
    order = int(gain[1] > 0)
    decided = torch.tensor([*gain, len(deciding)], dtype=torch.float64)
    calibration.tell(told(order, decided))
    return {**fitted[order], "anchor": torch.tensor(order), "gain": decided}


def take_anchored(pipe: Pipe, low_rank: LowRankLinears, tensors: Mapping[str, Tensor]) -> None:
    """Correct by these from the next generation on, counting from the anchor that stands beside them, if one does."""
    corrections = {name: one for name, one in tensors.items() if name not in CHOSEN}
    if "anchor" in tensors:
        low_rank.order = int(tensors["anchor"])
        pipe.notes = [note for note in pipe.notes if not note.startswith(SAID)]
        pipe.notes.append(told(low_rank.order, tensors["gain"]))
    low_rank.take(corrections)


def wrong_anchor(tensors: Mapping[str, Tensor]) -> list[str]:
    """Why `take_anchored` cannot read what stands beside the corrections."""
    anchor, gain = (tensors.get(name) for name in CHOSEN)
    if anchor is None or gain is None:
        return ["anchor, gain: missing; no anchor was chosen"]
    right = anchor.shape == () and anchor.item() in range(len(ANCHORS)) and gain.shape == (4,)
    return [] if right else ["anchor, gain: wanted 0 or 1, and four figures"]


def told(order: int, decided: Tensor) -> str:
    """What was chosen, in a sentence."""
    said = gained(decided.tolist()).replace("the default", "increments from the last full step")
    return f"{SAID}{ANCHORS[order]}; a line gains {said}"
