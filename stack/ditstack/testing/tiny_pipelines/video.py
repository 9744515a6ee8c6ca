"""The families that make videos."""
# diffusers loads its names lazily, and annotates more narrowly than it accepts.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false

from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    WanPipeline,
    WanTransformer3DModel,
)

from . import parts
from .parts import LATENTS, TEXT_LENGTH, TEXT_WIDTH, tiny

HEADS, HEAD_WIDTH = 2, 64
WIDTH = HEADS * HEAD_WIDTH


def _wan_transformer() -> WanTransformer3DModel:
    return WanTransformer3DModel(
        in_channels=LATENTS, out_channels=LATENTS, num_layers=3, attention_head_dim=HEAD_WIDTH,
        num_attention_heads=HEADS, text_dim=TEXT_WIDTH, freq_dim=64, ffn_dim=WIDTH, rope_max_seq_len=32,
    )  # fmt: skip


@tiny
def wan(two_transformers: bool = False, boundary_ratio: float = 0.6) -> WanPipeline:
    """Wan 2.1; with two transformers Wan 2.2: the second takes the timesteps below boundary_ratio * 1000."""
    return WanPipeline(
        tokenizer=parts.t5_tokenizer(),
        text_encoder=parts.umt5(),
        vae=parts.kl_wan(),
        scheduler=parts.flow_multistep(),
        transformer=_wan_transformer(),
        transformer_2=_wan_transformer() if two_transformers else None,
        boundary_ratio=boundary_ratio if two_transformers else None,
    )


@tiny
def hunyuan_video() -> HunyuanVideoPipeline:
    return HunyuanVideoPipeline(
        text_encoder=parts.llama(),
        tokenizer=parts.llama_tokenizer(),
        transformer=HunyuanVideoTransformer3DModel(
            in_channels=LATENTS, out_channels=LATENTS, num_layers=2, num_single_layers=3,
            num_refiner_layers=1, attention_head_dim=HEAD_WIDTH, num_attention_heads=HEADS,
            text_embed_dim=TEXT_WIDTH, pooled_projection_dim=TEXT_WIDTH, rope_axes_dim=(16, 24, 24),
        ),
        vae=parts.kl_hunyuan(),
        scheduler=parts.flow(),
        text_encoder_2=parts.clip(),
        tokenizer_2=parts.clip_tokenizer(),
    )  # fmt: skip


@tiny
def ltx() -> LTXPipeline:
    return LTXPipeline(
        scheduler=parts.flow(use_dynamic_shifting=True),
        vae=parts.kl_ltx(),
        text_encoder=parts.t5(),
        tokenizer=parts.t5_tokenizer(),
        transformer=LTXVideoTransformer3DModel(
            in_channels=LATENTS, out_channels=LATENTS, num_layers=3, attention_head_dim=HEAD_WIDTH,
            num_attention_heads=HEADS, cross_attention_dim=WIDTH, caption_channels=TEXT_WIDTH,
        ),
    )  # fmt: skip


@tiny
def cogvideo() -> CogVideoXPipeline:
    return CogVideoXPipeline(
        tokenizer=parts.t5_tokenizer(),
        text_encoder=parts.t5(),
        vae=parts.kl_cogvideo(),
        transformer=CogVideoXTransformer3DModel(
            in_channels=LATENTS, out_channels=LATENTS, num_layers=3, attention_head_dim=HEAD_WIDTH,
            num_attention_heads=HEADS, time_embed_dim=WIDTH, text_embed_dim=TEXT_WIDTH,
            max_text_seq_length=TEXT_LENGTH, sample_width=8, sample_height=8, sample_frames=9,
            use_rotary_positional_embeddings=True,
        ),
        scheduler=CogVideoXDDIMScheduler(prediction_type="v_prediction", clip_sample=False),
    )  # fmt: skip
