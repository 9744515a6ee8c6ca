"""Real model classes with random weights, for measuring speed. They make no pictures."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel


def flux(width: int, double: int, single: int, head: int = 64, device: str = "cpu") -> FluxPipeline:
    """A FluxPipeline without text encoders or autoencoder; call it with `embeddings` and `output_type="latent"`."""
    torch.manual_seed(0)
    with torch.device(device):
        transformer = FluxTransformer2DModel(
            num_layers=double,
            num_single_layers=single,
            attention_head_dim=head,
            num_attention_heads=width // head,
            joint_attention_dim=width,
            pooled_projection_dim=width,
            axes_dims_rope=(head // 8, head * 7 // 16, head * 7 // 16),
        )
    parts: dict[str, Any] = dict.fromkeys(("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    pipeline = FluxPipeline(FlowMatchEulerDiscreteScheduler(), transformer=transformer.eval(), **parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def embeddings(pipeline: FluxPipeline, text_tokens: int, batch: int = 1) -> dict[str, Any]:
    """Random prompt embeddings of the right shapes, and the arguments for a call that returns latents."""
    config = pipeline.transformer.config
    generator = torch.Generator().manual_seed(1)
    shape = (batch, text_tokens, config.joint_attention_dim)
    device, dtype = pipeline.transformer.device, pipeline.transformer.dtype
    return {
        "prompt_embeds": torch.randn(shape, generator=generator).to(device, dtype),
        "pooled_prompt_embeds": torch.randn(batch, config.pooled_projection_dim, generator=generator).to(device, dtype),
        "output_type": "latent",
        "generator": torch.Generator().manual_seed(2),
    }
