"""Real model classes with random weights, for measuring speed. They make no pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
)

CODERS = ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")


@dataclass(frozen=True)
class Shape:
    """A published model's sizes with random weights, and the same in small.

    Attributes:
        family: the word of its family in a recipe.
        make: its pipeline from (device, dtype, small).
        call: what a call takes beside the number of steps, from (pipeline, small).
    """

    family: str
    make: Callable[[str, torch.dtype, bool], Any]
    call: Callable[[Any, bool], dict[str, Any]]


def flux(
    width: int, double: int, single: int, head: int = 64, device: str = "cpu", dtype: torch.dtype = torch.float32,
    **more: Any,
) -> FluxPipeline:  # fmt: skip
    """A FluxPipeline without text encoders or autoencoder; call it with `embeddings` and `output_type="latent"`."""
    sizes = {"joint_attention_dim": width, "pooled_projection_dim": width, **more}
    with _on(device, dtype):
        transformer = FluxTransformer2DModel(
            num_layers=double,
            num_single_layers=single,
            attention_head_dim=head,
            num_attention_heads=width // head,
            axes_dims_rope=(head // 8, head * 7 // 16, head * 7 // 16),
            **sizes,
        )
    return _quiet(FluxPipeline(FlowMatchEulerDiscreteScheduler(), transformer=transformer, **dict.fromkeys(CODERS)))


def embeddings(pipeline: Any, text_tokens: int, batch: int = 1) -> dict[str, Any]:
    """Random prompt embeddings of the right shapes, and the arguments for a call that returns latents."""
    config = pipeline.transformer.config
    width = config.get("joint_attention_dim") or config.get("text_embed_dim") or config.get("caption_channels")
    pooled = {}
    if "pooled_projection_dim" in config:
        pooled["pooled_prompt_embeds"] = _random(pipeline, batch, config.pooled_projection_dim)
    return {
        "prompt_embeds": _random(pipeline, batch, text_tokens, width),
        **pooled,
        "output_type": "latent",
        "generator": torch.Generator().manual_seed(2),
    }


def _flux_dev(device: str, dtype: torch.dtype, small: bool) -> Any:
    if small:
        return flux(128, 2, 2, device=device, dtype=dtype, guidance_embeds=True)
    sizes = {"joint_attention_dim": 4096, "pooled_projection_dim": 768, "guidance_embeds": True}
    return flux(3072, 19, 38, 128, device, dtype, **sizes)


def _flux_call(pipeline: Any, small: bool) -> dict[str, Any]:
    side = 128 if small else 1024
    return {**embeddings(pipeline, 64 if small else 512), "height": side, "width": side}


def _hunyuan(device: str, dtype: torch.dtype, small: bool) -> Any:
    sizes: dict[str, Any] = {}
    if small:
        sizes = {"num_attention_heads": 2, "attention_head_dim": 64, "num_layers": 1, "num_single_layers": 2}
        sizes |= {"rope_axes_dim": (16, 24, 24), "text_embed_dim": 64, "pooled_projection_dim": 64}
    with _on(device, dtype):
        transformer = HunyuanVideoTransformer3DModel(**sizes)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=7.0)
    return _quiet(HunyuanVideoPipeline(transformer=transformer, scheduler=scheduler, **dict.fromkeys(CODERS)))


def _hunyuan_call(pipeline: Any, small: bool) -> dict[str, Any]:
    tokens = 16 if small else 256
    mask = torch.ones(1, tokens, device=pipeline.transformer.device, dtype=torch.bool)
    height, width, frames = (64, 64, 5) if small else (720, 1280, 61)
    size = {"height": height, "width": width, "num_frames": frames}
    return {**embeddings(pipeline, tokens), "prompt_attention_mask": mask, **size}


def _pixart(device: str, dtype: torch.dtype, small: bool) -> Any:
    heads = {"num_attention_heads": 2, "num_layers": 2, "cross_attention_dim": 144} if small else {}
    with _on(device, dtype):
        transformer = PixArtTransformer2DModel(
            caption_channels=64 if small else 4096, sample_size=16 if small else 128, **heads
        )
    parts: dict[str, Any] = dict.fromkeys(CODERS[:3])
    return _quiet(PixArtAlphaPipeline(transformer=transformer, scheduler=DPMSolverMultistepScheduler(), **parts))


def _pixart_call(pipeline: Any, small: bool) -> dict[str, Any]:
    given = embeddings(pipeline, 120)
    mask = torch.ones(1, 120, device=pipeline.transformer.device, dtype=pipeline.transformer.dtype)
    empty = {"negative_prompt": None, "negative_prompt_embeds": -given["prompt_embeds"]}
    masks = {"prompt_attention_mask": mask, "negative_prompt_attention_mask": mask}
    side = 128 if small else 1024
    return {**given, **empty, **masks, "height": side, "width": side, "use_resolution_binning": False}


def _dit(device: str, dtype: torch.dtype, small: bool) -> Any:
    heads = {"num_attention_heads": 2, "num_layers": 2, "sample_size": 8} if small else {}
    with _on(device, dtype):
        transformer = DiTTransformer2DModel(out_channels=8, num_embeds_ada_norm=1000, **heads)
        coder = AutoencoderKL(block_out_channels=(32,) * 4, down_block_types=("DownEncoderBlock2D",) * 4,
                              up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4)  # fmt: skip
    return _quiet(DiTPipeline(transformer, coder.eval(), DDIMScheduler()))


def _dit_call(pipeline: Any, small: bool) -> dict[str, Any]:
    labels = [1, 2] if small else [*range(8)]
    return {"class_labels": labels, "output_type": "np", "generator": torch.Generator().manual_seed(2)}


SHAPES = {
    "flux": Shape("flux", _flux_dev, _flux_call),
    "hunyuanvideo": Shape("hunyuanvideo", _hunyuan, _hunyuan_call),
    "pixart": Shape("pixart", _pixart, _pixart_call),
    "dit": Shape("dit", _dit, _dit_call),
}
"""FLUX.1-dev at 1024 x 1024; HunyuanVideo at 720p and 61 frames; PixArt-XL-2 at 1024 x 1024; DiT-XL/2 at 256 x 256."""


@contextmanager
def _on(device: str, dtype: torch.dtype) -> Iterator[None]:
    """Inside, weights are made where and as they will run."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def _quiet(pipeline: Any) -> Any:
    pipeline.transformer.eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _random(pipeline: Any, *shape: int) -> torch.Tensor:
    made = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return made.to(pipeline.transformer.device, pipeline.transformer.dtype)
