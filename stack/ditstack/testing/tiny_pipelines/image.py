"""The families that make pictures."""
# diffusers loads its names lazily, and annotates more narrowly than it accepts.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false

import warnings
from typing import Any

from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    ChromaPipeline,
    ChromaTransformer2DModel,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    FluxFillPipeline,
    FluxImg2ImgPipeline,
    FluxKontextPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)

from . import parts
from .parts import LATENTS, TEXT_WIDTH, tiny

HEADS, HEAD_WIDTH = 2, 64
WIDTH = HEADS * HEAD_WIDTH
PACKED = 4 * LATENTS  # channels of a 2 x 2 patch of latents


def _flux_parts(guidance_embeds: bool, in_channels: int = PACKED) -> dict[str, Any]:
    return {
        "scheduler": parts.flow(use_dynamic_shifting=True),
        "vae": parts.kl(),
        "text_encoder": parts.clip(),
        "tokenizer": parts.clip_tokenizer(),
        "text_encoder_2": parts.t5(),
        "tokenizer_2": parts.t5_tokenizer(),
        "transformer": FluxTransformer2DModel(
            in_channels=in_channels, out_channels=PACKED, num_layers=2, num_single_layers=3,
            attention_head_dim=HEAD_WIDTH, num_attention_heads=HEADS, joint_attention_dim=TEXT_WIDTH,
            pooled_projection_dim=TEXT_WIDTH, guidance_embeds=guidance_embeds, axes_dims_rope=(16, 24, 24),
        ),
    }  # fmt: skip


@tiny
def flux(guidance_embeds: bool = True) -> FluxPipeline:
    return FluxPipeline(**_flux_parts(guidance_embeds))


@tiny
def flux_img2img(guidance_embeds: bool = True) -> FluxImg2ImgPipeline:
    return FluxImg2ImgPipeline(**_flux_parts(guidance_embeds))


@tiny
def flux_fill(guidance_embeds: bool = True) -> FluxFillPipeline:
    """Its transformer also reads the masked picture and the mask: 2 x 2 latents of 2 x 2 pixels."""
    return FluxFillPipeline(**_flux_parts(guidance_embeds, in_channels=2 * PACKED + 16))


@tiny
def flux_kontext(guidance_embeds: bool = True) -> FluxKontextPipeline:
    return FluxKontextPipeline(**_flux_parts(guidance_embeds))


@tiny
def sd3() -> StableDiffusion3Pipeline:
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=8, in_channels=LATENTS, out_channels=LATENTS, num_layers=3,
            attention_head_dim=HEAD_WIDTH, num_attention_heads=HEADS, joint_attention_dim=2 * TEXT_WIDTH,
            caption_projection_dim=WIDTH, pooled_projection_dim=2 * TEXT_WIDTH, pos_embed_max_size=8,
            qk_norm="rms_norm",
        ),
        scheduler=parts.flow(),
        vae=parts.kl(),
        text_encoder=parts.clip_projected(),
        tokenizer=parts.clip_tokenizer(),
        text_encoder_2=parts.clip_projected(),
        tokenizer_2=parts.clip_tokenizer(),
        text_encoder_3=parts.t5(2 * TEXT_WIDTH),
        tokenizer_3=parts.t5_tokenizer(),
    )  # fmt: skip


def _pixart_parts() -> dict[str, Any]:
    return {
        "tokenizer": parts.t5_tokenizer(),
        "text_encoder": parts.t5(),
        "vae": parts.kl(),
        "transformer": PixArtTransformer2DModel(
            sample_size=8, in_channels=LATENTS, out_channels=2 * LATENTS, num_layers=3,
            caption_channels=TEXT_WIDTH, attention_head_dim=HEAD_WIDTH, num_attention_heads=HEADS,
            cross_attention_dim=WIDTH,
        ),
        "scheduler": parts.flow_multistep(),
    }  # fmt: skip


@tiny
def pixart() -> PixArtAlphaPipeline:
    return PixArtAlphaPipeline(**_pixart_parts())


@tiny
def pixart_sigma() -> PixArtSigmaPipeline:
    return PixArtSigmaPipeline(**_pixart_parts())


@tiny
def dit() -> DiTPipeline:
    return DiTPipeline(
        transformer=DiTTransformer2DModel(
            sample_size=8, in_channels=LATENTS, out_channels=2 * LATENTS, num_layers=3,
            attention_head_dim=HEAD_WIDTH, num_attention_heads=HEADS,
        ),
        vae=parts.kl(),
        scheduler=DDIMScheduler(clip_sample=False, prediction_type="v_prediction"),
    )  # fmt: skip


@tiny
def qwen_image() -> QwenImagePipeline:
    pipe = QwenImagePipeline(
        scheduler=parts.flow(use_dynamic_shifting=True),
        vae=parts.kl_qwen(),
        text_encoder=parts.qwen(),
        tokenizer=None,
        transformer=QwenImageTransformer2DModel(
            in_channels=PACKED, out_channels=LATENTS, num_layers=3, attention_head_dim=HEAD_WIDTH,
            num_attention_heads=HEADS, joint_attention_dim=TEXT_WIDTH, axes_dims_rope=(16, 24, 24),
        ),
    )  # fmt: skip
    pipe.register_modules(tokenizer=parts.qwen_tokenizer(pipe.prompt_template_encode))
    return pipe


@tiny
def auraflow() -> AuraFlowPipeline:
    return AuraFlowPipeline(
        tokenizer=parts.t5_tokenizer(),
        text_encoder=parts.umt5(),
        vae=parts.kl(),
        transformer=AuraFlowTransformer2DModel(
            sample_size=8, in_channels=LATENTS, out_channels=LATENTS, num_mmdit_layers=2,
            num_single_dit_layers=3, attention_head_dim=HEAD_WIDTH, num_attention_heads=HEADS,
            joint_attention_dim=TEXT_WIDTH, caption_projection_dim=WIDTH, pos_embed_max_size=64,
        ),
        scheduler=parts.flow(),
    )  # fmt: skip


@tiny
def sana() -> SanaPipeline:
    return SanaPipeline(
        tokenizer=parts.gemma_tokenizer(),
        text_encoder=parts.gemma(),
        vae=parts.kl_dc(),
        transformer=SanaTransformer2DModel(
            sample_size=8, in_channels=LATENTS, out_channels=LATENTS, num_layers=3, attention_head_dim=32,
            num_attention_heads=4, num_cross_attention_heads=HEADS, cross_attention_head_dim=HEAD_WIDTH,
            cross_attention_dim=WIDTH, caption_channels=TEXT_WIDTH,
        ),
        scheduler=parts.flow(),
    )  # fmt: skip


@tiny
def lumina2() -> Lumina2Pipeline:
    return Lumina2Pipeline(
        transformer=Lumina2Transformer2DModel(
            sample_size=8, in_channels=LATENTS, hidden_size=WIDTH, num_layers=3, num_refiner_layers=1,
            num_attention_heads=HEADS, num_kv_heads=1, multiple_of=64, cap_feat_dim=TEXT_WIDTH,
            axes_dim_rope=(16, 24, 24), axes_lens=(128, 32, 32),
        ),
        scheduler=parts.flow(),
        vae=parts.kl(levels=4),
        text_encoder=parts.gemma(),
        tokenizer=parts.gemma_tokenizer(),
    )  # fmt: skip


@tiny
def chroma() -> ChromaPipeline:
    """Flux without CLIP; the layers of its distilled_guidance_layer are no blocks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`FluxPosEmbed` is deprecated", FutureWarning)  # used by diffusers
        transformer = ChromaTransformer2DModel(
            in_channels=PACKED, num_layers=2, num_single_layers=3, attention_head_dim=HEAD_WIDTH,
            num_attention_heads=HEADS, joint_attention_dim=TEXT_WIDTH, axes_dims_rope=(16, 24, 24),
            approximator_num_channels=16, approximator_hidden_dim=32, approximator_layers=2,
        )  # fmt: skip
    return ChromaPipeline(
        scheduler=parts.flow(use_dynamic_shifting=True),
        vae=parts.kl(),
        text_encoder=parts.t5(),
        tokenizer=parts.t5_tokenizer(),
        transformer=transformer,
    )


@tiny
def z_image() -> ZImagePipeline:
    """Its transformer takes and returns lists with one tensor for each item."""
    return ZImagePipeline(
        scheduler=parts.flow(use_dynamic_shifting=True),
        vae=parts.kl(),
        text_encoder=parts.qwen3(),
        tokenizer=parts.qwen3_tokenizer(),
        transformer=ZImageTransformer2DModel(
            in_channels=LATENTS, dim=WIDTH, n_layers=3, n_refiner_layers=1, n_heads=HEADS, n_kv_heads=HEADS,
            cap_feat_dim=TEXT_WIDTH, axes_dims=[16, 24, 24], axes_lens=[256, 32, 32],
        ),
    )  # fmt: skip
