"""How much pictures look like real ones, in the features of the embedded model's classifier.

An IS-like score: exp of the mean divergence of the classifier's words for one picture, shape and colour, from those of
all pictures; 24 where every class is painted equally often and surely. A FID-like distance: Frechet, of the features
before the heads, to those of rendered pictures. Both depend on the number of pictures; compare equal numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ditstack.maths.fidelity import frechet
from ditstack_adapters.model.embedded.judge import ShapesJudge
from ditstack_adapters.model.embedded.render import render
from ditstack_adapters.model.embedded.shapes import random_scene

REAL = 40
"""Rendered pictures for each that is judged."""


def likeness(images_BCHW: Tensor, prompts: Sequence[str]) -> dict[str, float]:
    """Both scores of 64 x 64 pictures, rounded."""
    judge = _judge()
    features = judge.features(images_BCHW)
    with torch.inference_mode():
        said = judge.classifier(images_BCHW)
    shape, colour = (said[name].double().softmax(-1) for name in ("shape", "colour"))
    joint = (shape[:, :, None] * colour[:, None, :]).flatten(1)
    apart = (joint * (joint.clamp(min=1e-12).log() - joint.mean(0).clamp(min=1e-12).log())).sum(-1).mean()
    distance = frechet(features.repeat(REAL, 1), real(len(prompts) * REAL))  # sets of equal size
    return {"is_like": round(float(apart.exp()), 3), "fid_like": round(float(distance), 4)}


def of_real_ones(count: int) -> dict[str, float]:
    """The FID-like distance of as many rendered pictures, others than those that all are compared with."""
    rng = np.random.default_rng(12)
    pictures = torch.from_numpy(render([random_scene(rng, 1) for _ in range(count)], rng)).permute(0, 3, 1, 2).float()
    return {"fid_like_real": likeness(pictures, [""] * count)["fid_like"]}


@cache
def real(count: int) -> Tensor:
    """Features of rendered pictures of one shape."""
    rng = np.random.default_rng(11)
    parts = []
    for at in range(0, count, 240):
        pictures = render([random_scene(rng, 1) for _ in range(min(240, count - at))], rng)
        parts.append(_judge().features(torch.from_numpy(pictures).permute(0, 3, 1, 2).float()))
    return torch.cat(parts)


@cache
def _judge() -> ShapesJudge:
    return ShapesJudge()
