"""twin-flux2: FLUX that paints two or three objects, 256 image tokens, guided by an empty prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from ditstack_adapters.model.embedded.checker import check
from ditstack_adapters.model.embedded.shapes import (
    BACKGROUNDS,
    RELATIONS,
    TEXTURES,
    Scene,
    Thing,
    choices,
    held_out,
    omit,
)
from testbed.flow import NO_CAPTION, UNSAID, noise_levels
from testbed.latents import LinearEncoder, pack, to_tensor
from testbed.networks import clip, t5, transformer
from testbed.score import asking
from testbed.words import LENGTH, clip_tokenizer, t5_tokenizer
from twinning.canvas import render
from twinning.parts import shipped_autoencoder

# B pictures, T image tokens, C channels of a token

SIDE = 128  # pixels
GRID = 16  # tokens on a side
THREE = 0.35  # share of scenes with three objects
COARSE = 300_000  # first samples, at half the resolution: a quarter of the tokens
SHAPES, COLOURS, _ = choices(2)


class Painter(nn.Module):
    """Transformer and text encoders, trained together and called as FluxPipeline calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = transformer(2, 8)
        self._t5_words: Any = t5_tokenizer()
        self._clip_words: Any = clip_tokenizer()
        self.t5, self.clip = t5(), clip(self._clip_words, self._clip_words.model_max_length)

    def forward(self, x_BTC: Tensor, t_B: Tensor, captions: list[str]) -> Tensor:
        """The velocity at noise level `t`, 1 is noise."""
        full = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        return self.transformer(
            hidden_states=x_BTC,
            timestep=t_B,
            pooled_projections=self.clip(self._clip_words(captions, **full).input_ids).pooler_output,
            encoder_hidden_states=self.t5(self._t5_words(captions, max_length=LENGTH, **full).input_ids)[0],
            txt_ids=torch.zeros(LENGTH, 3),
            img_ids=places(x_BTC.shape[1]),
            return_dict=False,
        )[0]


def places(tokens: int) -> Tensor:
    """(T, 3) position ids; those of fewer tokens lie where the tokens of the full grid that they cover do."""
    side = round(tokens**0.5)
    stride = GRID / side
    axis = torch.arange(side) * stride + (stride - 1) / 2
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], -1).reshape(-1, 3)


def scene(rng: np.random.Generator) -> Scene:
    """Two objects and their relation, or three objects; held out or not."""

    def pick(words: Sequence[str]) -> str:
        return words[int(rng.integers(len(words)))]

    count = 3 if rng.random() < THREE else 2
    things = tuple(Thing(pick(SHAPES), pick(COLOURS)) for _ in range(count))
    relation = pick(RELATIONS) if count == 2 else None
    return Scene(things, relation=relation, background=pick(BACKGROUNDS), texture=pick(TEXTURES))


class FluxTwin:
    name = "flux2"
    muon_rate = 0.02
    guidance = 3.0
    steps = 28
    settings = ((28, 3.0), (28, 1.0))

    def __init__(self) -> None:
        self.encoder = LinearEncoder()

    def painter(self) -> Painter:
        return Painter()

    def batch(self, seen: int) -> int:
        return 48 if seen < COARSE else 24

    def loss(self, painter: Painter, rng: np.random.Generator, size: int, seen: int) -> tuple[Tensor, Tensor]:
        scenes = [_trained(rng) for _ in range(size)]
        captions = ["" if rng.random() < NO_CAPTION else str(omit(one, rng, UNSAID)) for one in scenes]
        side = SIDE // 2 if seen < COARSE else SIDE
        z_BTC = pack(self.encoder.encode(to_tensor(render(scenes, rng, side))))
        t, noise = noise_levels(size), torch.randn_like(z_BTC)
        with torch.autocast("cpu", torch.bfloat16):
            velocity = painter(torch.lerp(z_BTC, noise, t[:, None, None]), t, captions)
        return t, (velocity.float() - (noise - z_BTC)).square().mean((1, 2))

    def pipeline(self, painter: Painter) -> FluxPipeline:
        vae: Any = shipped_autoencoder()
        transformer: Any = painter.transformer
        return FluxPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15),
            vae=vae,
            text_encoder=painter.clip,
            tokenizer=clip_tokenizer(),
            text_encoder_2=painter.t5,
            tokenizer_2=t5_tokenizer(),
            transformer=transformer.to(torch.bfloat16),
        )

    def prompts(self, count: int, seed: int = 0) -> list[str]:
        rng = np.random.default_rng(seed)
        drawn: dict[str, None] = {}
        while len(drawn) < count:
            if held_out(one := scene(rng)):
                drawn[str(one)] = None
        return list(drawn)

    def paint(self, pipe: Any, prompts: Sequence[str], steps: int, guidance: float, seeds: Sequence[int]) -> Tensor:
        return pipe(**asking(prompts, seeds, steps, guidance, SIDE, LENGTH), output_type="pt").images

    def agreement(self, made: Tensor, prompts: Sequence[str]) -> list[dict[str, bool]]:
        small = torch.nn.functional.avg_pool2d(made.float(), made.shape[-1] // 64)
        pictures = small.permute(0, 2, 3, 1).numpy()
        return [check(picture, prompt) for picture, prompt in zip(pictures, prompts, strict=True)]


def _trained(rng: np.random.Generator) -> Scene:
    while held_out(one := scene(rng)):
        pass
    return one


TWIN = FluxTwin()
