"""twin-pixart: PixArt that paints one captioned shape; it predicts noise, DPM-Solver++ removes it in 20 steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel
from diffusers.pipelines.pixart_alpha.pipeline_pixart_alpha import PixArtAlphaPipeline
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from torch import Tensor, nn

from ditstack_adapters.model.embedded.checker import check
from ditstack_adapters.model.embedded.render import render
from ditstack_adapters.model.embedded.shapes import omit, training_scene, unseen_prompts
from testbed.flow import NO_CAPTION, UNSAID
from testbed.latents import CHANNELS, LinearEncoder, to_tensor
from testbed.networks import TEXT_WIDTH, t5
from testbed.words import LENGTH, t5_tokenizer
from twinning.noise import add_noise, denoising_error, timesteps
from twinning.parts import shipped_autoencoder, zero

# B pictures, C latent channels, L latent side

SIDE = 16  # latents; patches of 2 x 2 make 64 tokens
HEADS, HEAD_WIDTH = 2, 64


class Painter(nn.Module):
    """Transformer and T5, trained together; padding is masked, as in the pipeline."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = PixArtTransformer2DModel(
            num_attention_heads=HEADS,
            attention_head_dim=HEAD_WIDTH,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            num_layers=10,
            cross_attention_dim=HEADS * HEAD_WIDTH,
            caption_channels=TEXT_WIDTH,
            sample_size=SIDE,
        )
        zero(self.transformer.proj_out, self.transformer.adaln_single.linear)
        self.t5 = t5()
        self._words: Any = t5_tokenizer()

    def forward(self, x_BCLL: Tensor, t_B: Tensor, captions: list[str]) -> Tensor:
        """The noise in `x` after `t` steps of it."""
        words = self._words(captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
        return self.transformer(
            x_BCLL,
            encoder_hidden_states=self.t5(words.input_ids, attention_mask=words.attention_mask)[0],
            encoder_attention_mask=words.attention_mask,
            timestep=t_B,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )[0]


class PixArtTwin:
    name = "pixart"
    muon_rate = 0.02
    guidance = 4.5
    steps = 20
    settings = ((20, 4.5), (20, 1.0))

    def __init__(self) -> None:
        self.encoder = LinearEncoder()

    def painter(self) -> Painter:
        return Painter()

    def batch(self, seen: int) -> int:
        return 48

    def loss(self, painter: Painter, rng: np.random.Generator, size: int, seen: int) -> tuple[Tensor, Tensor]:
        scenes = [training_scene(rng, 1) for _ in range(size)]
        captions = ["" if rng.random() < NO_CAPTION else str(omit(one, rng, UNSAID)) for one in scenes]
        z_BCLL = self.encoder.encode(to_tensor(render(scenes, rng)))
        t, noise = timesteps(size), torch.randn_like(z_BCLL)
        with torch.autocast("cpu", torch.bfloat16):
            said = painter(add_noise(z_BCLL, noise, t), t, captions)
        return t / 1000, denoising_error(said, noise, t)

    def pipeline(self, painter: Painter) -> PixArtAlphaPipeline:
        vae: Any = shipped_autoencoder()
        transformer: Any = painter.transformer
        return PixArtAlphaPipeline(
            tokenizer=t5_tokenizer(),
            text_encoder=painter.t5,
            vae=vae,
            transformer=transformer.half(),
            scheduler=DPMSolverMultistepScheduler(beta_start=0.0001, beta_end=0.02, solver_order=2),
        )

    def prompts(self, count: int, seed: int = 0) -> list[str]:
        return unseen_prompts(count, seed)

    def paint(self, pipe: Any, prompts: Sequence[str], steps: int, guidance: float, seeds: Sequence[int]) -> Tensor:
        return pipe(
            prompt=list(prompts),
            guidance_scale=guidance,
            num_inference_steps=steps,
            clean_caption=False,
            use_resolution_binning=False,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="pt",
        ).images

    def agreement(self, made: Tensor, prompts: Sequence[str]) -> list[dict[str, bool]]:
        pictures = made.permute(0, 2, 3, 1).float().numpy()
        return [check(picture, prompt) for picture, prompt in zip(pictures, prompts, strict=True)]


TWIN = PixArtTwin()
