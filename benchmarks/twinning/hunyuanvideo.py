"""twin-hunyuanvideo: HunyuanVideo that paints 13 frames of one moving shape; its captions say where it goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import AutoencoderKLHunyuanVideo
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformer3DModel
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE, HunyuanVideoPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from testbed.flow import NO_CAPTION, UNSAID, noise_levels
from testbed.networks import TEXT_WIDTH, clip
from testbed.score import asking
from twinning.moving import Clip, check, omit, random_clip, render
from twinning.parts import zero
from twinning.patches import Patches
from twinning.words import CLIP_LENGTH, CROPPED, LENGTH, clip_tokenizer, llama_tokenizer

# B videos, F frames, f latent frames, C latent channels, S side in pixels, L latent side

SIDE, FRAMES = 32, 13
CHANNELS = 24
SKIPPED = 2  # last layers of the text encoder that the pipeline does not use
DECODED = 2  # videos of a step that the decoder learns from
SLIP = 0.03  # noise of the latents that it learns from, since a sampled latent is never exact
TEMPLATE: Any = DEFAULT_PROMPT_TEMPLATE["template"]


class Painter(nn.Module):
    """Transformer, text encoders and the autoencoder's decoder; the linear code of patches that it decodes."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = HunyuanVideoTransformer3DModel(
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            num_attention_heads=2,
            attention_head_dim=64,
            num_layers=2,
            num_single_layers=4,
            num_refiner_layers=1,
            guidance_embeds=False,
            text_embed_dim=TEXT_WIDTH,
            pooled_projection_dim=TEXT_WIDTH,
            rope_axes_dim=(16, 24, 24),
        )
        zero(self.transformer.proj_out, self.transformer.norm_out.linear)
        self.llama_words: Any = llama_tokenizer()
        self._clip_words: Any = clip_tokenizer()
        self.llama, self.clip, self.autoencoder = llama(), clip(self._clip_words, CLIP_LENGTH), autoencoder()
        rng = np.random.default_rng(0)
        self.patches = Patches(videos([random_clip(rng, unseen=False) for _ in range(400)], rng), CHANNELS)

    def forward(self, x_BCfLL: Tensor, t_B: Tensor, captions: list[str]) -> Tensor:
        """The velocity at noise level `t`, 1 is noise."""
        told = [TEMPLATE.format(caption) for caption in captions]
        full = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        words = self.llama_words(told, max_length=CROPPED + LENGTH, **full)
        said = self.llama(words.input_ids, attention_mask=words.attention_mask, output_hidden_states=True)
        short = self._clip_words(captions, max_length=2 * LENGTH, **full).input_ids
        return self.transformer(
            x_BCfLL,
            timestep=t_B * 1000,
            encoder_hidden_states=said.hidden_states[-1 - SKIPPED][:, CROPPED:],
            encoder_attention_mask=words.attention_mask[:, CROPPED:],
            pooled_projections=self.clip(short).pooler_output,
            return_dict=False,
        )[0]


def llama() -> LlamaModel:
    """Four layers, of which the pipeline uses the first two."""
    config = LlamaConfig(
        vocab_size=len(llama_tokenizer()),
        hidden_size=TEXT_WIDTH,
        intermediate_size=192,
        num_hidden_layers=2 + SKIPPED,
        num_attention_heads=2,
        num_key_value_heads=2,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=2,
    )
    return LlamaModel(config)


def autoencoder() -> AutoencoderKLHunyuanVideo:
    """A quarter of each side and of the frames. Only its decoder is ever trained."""
    widths: Any = (16, 24, 32)
    return AutoencoderKLHunyuanVideo(
        latent_channels=CHANNELS,
        block_out_channels=widths,
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 3,
        up_block_types=("HunyuanVideoUpBlock3D",) * 3,
        scaling_factor=1.0,
        spatial_compression_ratio=4,
        temporal_compression_ratio=4,
        mid_block_add_attention=False,
    )


def videos(clips: Sequence[Clip], rng: np.random.Generator) -> Tensor:
    """(B, 3, F, S, S) in [-1, 1]."""
    return torch.from_numpy(render(clips, rng, FRAMES, SIDE)).permute(0, 4, 1, 2, 3) * 2 - 1


class HunyuanVideoTwin:
    name = "hunyuanvideo"
    muon_rate = 0.02
    guidance = 1.0
    steps = 30
    settings = ((30, 1.0), (30, 3.0))

    def painter(self) -> Painter:
        return Painter()

    def batch(self, seen: int) -> int:
        return 32

    def loss(self, painter: Painter, rng: np.random.Generator, size: int, seen: int) -> tuple[Tensor, Tensor]:
        """The decoder's loss is added to each sample's; the two share no weights."""
        clips = [random_clip(rng, unseen=False) for _ in range(size)]
        captions = ["" if rng.random() < NO_CAPTION else str(omit(one, rng, UNSAID)) for one in clips]
        video = videos(clips, rng)
        z_BCfLL = painter.patches.encode(video)
        t, noise = noise_levels(size), torch.randn_like(z_BCfLL)
        with torch.autocast("cpu", torch.bfloat16):
            velocity = painter(torch.lerp(z_BCfLL, noise, t.view(-1, 1, 1, 1, 1)), t, captions)
            slipped = z_BCfLL[:DECODED] + SLIP * noise[:DECODED]
            decoded = painter.autoencoder.decode(slipped, return_dict=False)[0]
        off = decoded.float() - video[:DECODED]
        errors = (velocity.float() - (noise - z_BCfLL)).square().flatten(1).mean(1)
        return t, errors + off.square().mean() + 0.1 * off.abs().mean()

    def pipeline(self, painter: Painter) -> HunyuanVideoPipeline:
        transformer: Any = painter.transformer
        return HunyuanVideoPipeline(
            text_encoder=painter.llama,
            tokenizer=painter.llama_words,
            transformer=transformer.to(torch.bfloat16),
            vae=painter.autoencoder.half(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=2.0),
            text_encoder_2=painter.clip,
            tokenizer_2=clip_tokenizer(),
        )

    def prompts(self, count: int, seed: int = 0) -> list[str]:
        rng = np.random.default_rng(seed)
        return [str(random_clip(rng, unseen=True)) for _ in range(count)]

    def paint(self, pipe: Any, prompts: Sequence[str], steps: int, guidance: float, seeds: Sequence[int]) -> Tensor:
        asked = asking(prompts, seeds, steps, guidance, SIDE, LENGTH)
        return pipe(**asked, num_frames=FRAMES, output_type="pt").frames

    def agreement(self, made: Tensor, prompts: Sequence[str]) -> list[dict[str, bool]]:
        large = torch.nn.functional.interpolate(made.float().flatten(0, 1), (64, 64), mode="bicubic").clamp(0, 1)
        seen = large.unflatten(0, made.shape[:2]).permute(0, 1, 3, 4, 2).numpy()
        return [check(video, prompt) for video, prompt in zip(seen, prompts, strict=True)]


TWIN = HunyuanVideoTwin()
