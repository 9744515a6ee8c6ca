"""twin-dit: DiT that paints a shape of a class; place, background and texture are its own choice."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from diffusers.pipelines.dit.pipeline_dit import DiTPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn

from ditstack_adapters.model.embedded.checker import check
from ditstack_adapters.model.embedded.render import render
from ditstack_adapters.model.embedded.shapes import Scene, choices, random_scene
from testbed.latents import CHANNELS, LinearEncoder, to_tensor
from twinning.noise import add_noise, denoising_error, timesteps
from twinning.parts import shipped_autoencoder, zero

# B pictures, C latent channels, L latent side

SHAPES, COLOURS, _ = choices(1)
CLASSES = [f"{colour} {shape}" for shape, colour in itertools.product(SHAPES, COLOURS)]
NO_CLASS = 1000  # the label that DiTPipeline gives its unguided branch
DROPPED = 0.1  # share of samples that are trained with it
SIDE = 16  # latents; patches of 2 x 2 make 64 tokens


class Painter(nn.Module):
    """The transformer alone: labels need no encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=64,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            num_layers=10,
            sample_size=SIDE,
            patch_size=2,
        )
        zero(self.transformer.proj_out_1, self.transformer.proj_out_2)
        blocks: Any = self.transformer.transformer_blocks
        for block in blocks:
            zero(block.norm1.linear, block.norm1.emb.class_embedder.embedding_table)
        self.transformer.eval()  # drops no labels by itself: it would drop others in each block


class DiTTwin:
    name = "dit"
    muon_rate = 0.02
    guidance = 4.0
    steps = 50
    settings = ((50, 4.0), (50, 1.5))

    def __init__(self) -> None:
        self.encoder = LinearEncoder()

    def painter(self) -> Painter:
        return Painter()

    def batch(self, seen: int) -> int:
        return 64

    def loss(self, painter: Painter, rng: np.random.Generator, size: int, seen: int) -> tuple[Tensor, Tensor]:
        scenes = [random_scene(rng, 1) for _ in range(size)]
        z_BCLL = self.encoder.encode(to_tensor(render(scenes, rng)))
        labels = torch.tensor([_label(scene) if rng.random() > DROPPED else NO_CLASS for scene in scenes])
        t = timesteps(size)
        noise = torch.randn_like(z_BCLL)
        with torch.autocast("cpu", torch.bfloat16):
            said = painter.transformer(add_noise(z_BCLL, noise, t), t, labels, return_dict=False)[0]
        return t / 1000, denoising_error(said, noise, t)

    def pipeline(self, painter: Painter) -> DiTPipeline:
        scheduler: Any = DDIMScheduler(clip_sample=False, beta_start=0.0001, beta_end=0.02)
        vae: Any = shipped_autoencoder()
        transformer: Any = painter.transformer
        names = dict(enumerate(CLASSES))
        pipe = DiTPipeline(transformer.half(), vae, scheduler, id2label=names)
        pipe.register_to_config(id2label=names)
        return pipe

    def prompts(self, count: int, seed: int = 0) -> list[str]:
        order = np.random.default_rng(seed).permutation(len(CLASSES))
        return [CLASSES[order[place % len(CLASSES)]] for place in range(count)]

    def paint(self, pipe: Any, prompts: Sequence[str], steps: int, guidance: float, seeds: Sequence[int]) -> Tensor:
        return pipe(
            class_labels=pipe.get_label_ids(list(prompts)),
            guidance_scale=guidance,
            num_inference_steps=steps,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="pt",
        ).images

    def agreement(self, made: Tensor, prompts: Sequence[str]) -> list[dict[str, bool]]:
        pictures = made.permute(0, 2, 3, 1).float().numpy()
        return [check(picture, f"a {prompt}") for picture, prompt in zip(pictures, prompts, strict=True)]


def _label(scene: Scene) -> int:
    thing = scene.things[0]
    return CLASSES.index(f"{thing.colour} {thing.shape}")


TWIN = DiTTwin()
