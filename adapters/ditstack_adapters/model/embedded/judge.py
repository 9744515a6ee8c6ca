"""The judge of captioned shapes: prompts never trained on, what a picture agrees with, and features of a classifier.

The classifier is trained by `benchmarks/testbed/trainclassifier.py` on rendered shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from .checker import check
from .shapes import BACKGROUNDS, PLACES, choices, unseen_prompts

# B pictures, F features

WEIGHTS = Path(__file__).parent / "classifier.safetensors"
SIDE = 64
SHAPES, COLOURS, TEXTURES = choices(1)
CLASSES = {"shape": SHAPES, "colour": COLOURS, "place": PLACES, "background": BACKGROUNDS, "texture": TEXTURES}


class Classifier(nn.Module):
    """64 x 64 pixels to 32 features, and from those each attribute of the one object."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 48, 48)
        layers: list[nn.Module] = []
        for narrow, wide in pairwise(widths):
            layers += [nn.Conv2d(narrow, wide, 3, stride=2, padding=1), nn.GELU()]
        self.trunk = nn.Sequential(*layers, nn.Flatten(), nn.Linear(48 * 4 * 4, 32))
        self.heads = nn.ModuleDict({name: nn.Linear(32, len(words)) for name, words in CLASSES.items()})

    def forward(self, images_BCHW: Tensor) -> dict[str, Tensor]:
        features_BF = nn.functional.gelu(self.trunk(images_BCHW * 2 - 1))
        return {name: head(features_BF) for name, head in self.heads.items()}


class ShapesJudge:
    """Judges pictures by their captions; those of another size are looked at in 64 x 64 pixels."""

    attributes = ("count", *CLASSES)

    def prompts(self, count: int) -> list[str]:
        """Captions of combinations that the model was never trained on."""
        return unseen_prompts(count)

    def agreement(self, images_BCHW: Tensor, prompts: Sequence[str]) -> list[dict[str, bool]]:
        """For each picture, every attribute that its caption names and whether the picture agrees."""
        pictures = _seen(images_BCHW).permute(0, 2, 3, 1).numpy()
        return [check(picture, prompt) for picture, prompt in zip(pictures, prompts, strict=True)]

    def features(self, images_BCHW: Tensor) -> Tensor:
        """(B, F) of the classifier, just before its heads."""
        with torch.inference_mode():
            return self.classifier.trunk(_seen(images_BCHW) * 2 - 1)

    @cached_property
    def classifier(self) -> Classifier:
        """With its trained weights."""
        classifier = Classifier()
        classifier.load_state_dict({name: one.float() for name, one in load_file(WEIGHTS).items()})
        return classifier.eval()


def _seen(images_BCHW: Tensor) -> Tensor:
    """As the checker and the classifier know pictures."""
    alike = images_BCHW.shape[-2:] == (SIDE, SIDE)
    return images_BCHW if alike else nn.functional.adaptive_avg_pool2d(images_BCHW, SIDE)
