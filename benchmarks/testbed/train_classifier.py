"""Trains the small classifier whose features the embedded model's judge compares sets of pictures in.

    PYTHONPATH=benchmarks python -m testbed.train_classifier [--steps 1200]

Rendered shapes with a little noise, labels from the scene; two minutes on one core. Seed 0.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from ditstack_adapters.model.embedded.judge import CLASSES, WEIGHTS, Classifier
from ditstack_adapters.model.embedded.render import render
from ditstack_adapters.model.embedded.shapes import Scene, random_scene

BATCH = 64


def batch(rng: np.random.Generator, size: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Noisy pictures and the place of each attribute in its list of words."""
    scenes = [random_scene(rng, 1) for _ in range(size)]
    pictures = render(scenes, rng)
    noisy = pictures + rng.uniform(0, 0.08, (size, 1, 1, 1)) * rng.standard_normal(pictures.shape)
    labels = {
        name: torch.tensor([words.index(said(scene, name)) for scene in scenes]) for name, words in CLASSES.items()
    }
    return torch.from_numpy(noisy.astype(np.float32)).permute(0, 3, 1, 2), labels


def said(scene: Scene, name: str) -> str:
    """The scene's word for an attribute."""
    return str(getattr(scene.things[0] if name in ("shape", "colour") else scene, name))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1200)
    steps = parser.parse_args().steps
    torch.manual_seed(0)
    rng, classifier = np.random.default_rng(0), Classifier()
    optimizer = torch.optim.AdamW(classifier.parameters(), 3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    for step in range(steps):
        images, labels = batch(rng, BATCH)
        said_by_net = classifier(images)
        loss = torch.stack(
            [torch.nn.functional.cross_entropy(said_by_net[name], labels[name]) for name in labels]
        ).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"{step:5d} {loss.item():.3f}", flush=True)
    images, labels = batch(np.random.default_rng(1), 1000)
    with torch.inference_mode():
        found = classifier(images)
    print({name: float((found[name].argmax(1) == labels[name]).float().mean()) for name in labels})
    save_file({name: one.half() for name, one in classifier.state_dict().items()}, WEIGHTS)


if __name__ == "__main__":
    main()
