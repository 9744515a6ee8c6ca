"""The classifier that ships with the embedded model reads rendered shapes right, and is small."""

import numpy as np
import torch

from ditstack_adapters.model.embedded.judge import WEIGHTS, ShapesJudge
from testbed.train_classifier import batch


def test_the_shipped_classifier_reads_renders_it_has_not_seen() -> None:
    images, labels = batch(np.random.default_rng(7), 100)
    with torch.inference_mode():
        found = ShapesJudge().classifier(images)
    for name, wanted in labels.items():
        assert (found[name].argmax(1) == wanted).float().mean() > 0.97, name
    assert WEIGHTS.stat().st_size < 500_000
