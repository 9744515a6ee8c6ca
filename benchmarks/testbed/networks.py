"""The parts of the embedded FLUX pipeline, with random weights."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from testbed.latents import CHANNELS
from testbed.words import LENGTH, clip_tokenizer, t5_tokenizer

TEXT_WIDTH = 64
GRID = 8  # image tokens on a side


def transformer(blocks: int = 3, single_blocks: int = 6) -> FluxTransformer2DModel:
    """FLUX's blocks with heads of FLUX's own kind, 64 wide, that say nothing yet; 3.4 million parameters."""
    model = FluxTransformer2DModel(
        in_channels=4 * CHANNELS,
        num_layers=blocks,
        num_single_layers=single_blocks,
        attention_head_dim=64,
        num_attention_heads=2,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        guidance_embeds=False,
        axes_dims_rope=(8, 28, 28),
    )
    for layer in (model.proj_out, model.norm_out.linear):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return model


def t5() -> T5EncoderModel:
    """Two layers; its relative positions carry the order of the words, which FLUX's `txt_ids` do not."""
    config = T5Config(
        vocab_size=len(t5_tokenizer()),
        d_model=TEXT_WIDTH,
        d_kv=32,
        num_heads=2,
        d_ff=256,
        num_layers=2,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        relative_attention_num_buckets=16,
        relative_attention_max_distance=16,
    )
    return T5EncoderModel(config)


def clip(tokenizer: Any, length: int) -> CLIPTextModel:
    """One layer, pooled at the first end-of-text token, for so many tokens."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=256,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def autoencoder() -> AutoencoderTiny:
    """Plain convolutions, scale factor 4, 16 channels."""
    return AutoencoderTiny(
        encoder_block_out_channels=(32, 32, 32),
        decoder_block_out_channels=(40, 40, 40),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(3, 3, 1),
        latent_channels=CHANNELS,
        scaling_factor=2.0,  # the decoder clamps its input softly at 3
    )


class Painter(nn.Module):
    """What is trained together: text encoders and transformer, called as FluxPipeline calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = transformer()
        self.t5 = t5()
        self._t5_words = t5_tokenizer()
        self._clip_words: Any = clip_tokenizer()
        self.clip = clip(self._clip_words, self._clip_words.model_max_length)
        self.register_buffer("txt_ids", torch.zeros(LENGTH, 3), persistent=False)
        axis = torch.arange(GRID, dtype=torch.float32)
        rows, columns = torch.meshgrid(axis, axis, indexing="ij")
        ids = torch.stack([torch.zeros_like(rows), rows, columns], -1).reshape(-1, 3)
        self.register_buffer("img_ids", ids, persistent=False)

    def tokens(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Token ids for the two encoders, padded as in the pipeline."""
        long = self._t5_words(
            captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
        ).input_ids
        short = self._clip_words(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return long, short

    def forward(self, x_NTC: Tensor, t_N: Tensor, captions: list[str]) -> Tensor:
        """The velocity at noise level `t`, 1 is noise."""
        long, short = self.tokens(captions)
        return self.transformer(
            hidden_states=x_NTC,
            timestep=t_N,
            pooled_projections=self.clip(short).pooler_output,
            encoder_hidden_states=self.t5(long)[0],
            txt_ids=self.txt_ids,
            img_ids=self.img_ids,
            return_dict=False,
        )[0]
