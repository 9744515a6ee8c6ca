"""LTX-2, whose transformer makes a video and its sound, and HunyuanVideo 1.5, whose guider is a part of its own."""
# pyright: reportPrivateImportUsage=false, reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

from typing import Any

import diffusers
import torch

from ditstack.testing.tiny_pipelines import parts
from ditstack.testing.tiny_pipelines.parts import TEXT_WIDTH

from .registry import Made, case, noise, picture

HEADS = {"attention_head_dim": 64, "num_attention_heads": 2}
WIDTH = 128


def ltx2_parts() -> dict[str, Any]:
    from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder

    transformer = diffusers.LTX2VideoTransformer3DModel(
        in_channels=4, out_channels=4, cross_attention_dim=WIDTH, audio_in_channels=4, audio_out_channels=4,
        audio_num_attention_heads=2, audio_attention_head_dim=32, audio_cross_attention_dim=64, num_layers=3,
        caption_channels=TEXT_WIDTH, rope_double_precision=False, perturbed_attn=True, **HEADS,
    )  # fmt: skip
    connectors = LTX2TextConnectors(
        caption_channels=TEXT_WIDTH, text_proj_in_factor=1, video_connector_num_attention_heads=2,
        video_connector_attention_head_dim=16, video_connector_num_layers=1,
        video_connector_num_learnable_registers=None,
        audio_connector_num_attention_heads=2, audio_connector_attention_head_dim=16, audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=None, connector_rope_base_seq_len=32, rope_double_precision=False,
    )  # fmt: skip
    coder = diffusers.AutoencoderKLLTX2Video(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8),
        layers_per_block=(1,) * 5, decoder_layers_per_block=(1,) * 4,
        spatial_compression_ratio=32, temporal_compression_ratio=8,
    )  # fmt: skip
    sound = diffusers.AutoencoderKLLTX2Audio(
        base_channels=4, output_channels=2, ch_mult=(1,), num_res_blocks=1, latent_channels=2, mel_bins=8,
        sample_rate=16000,
    )  # fmt: skip
    voice = LTX2Vocoder(
        in_channels=16, hidden_channels=8, upsample_kernel_sizes=[4, 4], upsample_factors=[2, 2],
        resnet_kernel_sizes=[3], resnet_dilations=[[1, 3, 5]],
    )  # fmt: skip
    return {
        "scheduler": parts.flow(use_dynamic_shifting=True), "vae": coder, "audio_vae": sound, "text_encoder": None,
        "tokenizer": None, "connectors": connectors, "transformer": transformer, "vocoder": voice,
    }  # fmt: skip


@case("LTX2Pipeline", "LTX2ImageToVideoPipeline", "LTX2ConditionPipeline")
def ltx2(name: str) -> Made:
    import diffusers.pipelines.ltx2 as room

    pipeline = getattr(room, name)(**ltx2_parts())
    embeds = {"prompt_embeds": noise(1, 16, TEXT_WIDTH), "negative_prompt_embeds": -noise(1, 16, TEXT_WIDTH)}
    masks = {f"{kind}prompt_attention_mask": torch.ones(1, 16, dtype=torch.long) for kind in ("", "negative_")}
    call: dict[str, Any] = {**embeds, **masks, "height": 64, "width": 64, "num_frames": 9, "output_type": "latent"}
    call["spatio_temporal_guidance_blocks"] = [1]
    if "Image" in name:
        call |= {"image": picture(64), "image_crf": 0}
    if "Condition" in name:
        call["conditions"] = room.LTX2VideoCondition(frames=picture(64), index=0, strength=1.0, crf=0)
    return pipeline, call


@case("HunyuanVideo15Pipeline", "HunyuanVideo15ImageToVideoPipeline")
def hunyuan15(name: str) -> Made:
    from diffusers.guiders import ClassifierFreeGuidance

    image = "Image" in name
    transformer = diffusers.HunyuanVideo15Transformer3DModel(
        in_channels=2 * 4 + 1, out_channels=4, num_layers=3, num_refiner_layers=1, text_embed_dim=TEXT_WIDTH,
        text_embed_2_dim=TEXT_WIDTH, image_embed_dim=16, rope_axes_dim=(16, 24, 24), target_size=64,
        task_type="i2v" if image else "t2v", **HEADS,
    )  # fmt: skip
    coder = diffusers.AutoencoderKLHunyuanVideo15(
        latent_channels=4, block_out_channels=(32, 32, 32), layers_per_block=1, spatial_compression_ratio=4,
        temporal_compression_ratio=4,
    )  # fmt: skip
    own: dict[str, Any] = {
        "text_encoder": None, "tokenizer": None, "transformer": transformer, "vae": coder, "scheduler": parts.flow(),
        "text_encoder_2": None, "tokenizer_2": None, "guider": ClassifierFreeGuidance(guidance_scale=3.0),
    }  # fmt: skip
    call: dict[str, Any] = {"num_frames": 5, "output_type": "latent"}
    if image:
        from transformers import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        own["image_encoder"] = SiglipVisionModel(SiglipVisionConfig(**sizes, image_size=32, patch_size=16))
        own["feature_extractor"] = SiglipImageProcessor(size={"height": 32, "width": 32})
        call["image"] = picture(64)
    else:
        call |= {"height": 32, "width": 32}
    for kind in ("prompt", "negative_prompt"):
        for which in ("", "_2"):
            call[f"{kind}_embeds{which}"] = noise(1, 16, TEXT_WIDTH) * (1 if kind == "prompt" else -1)
            call[f"{kind}_embeds_mask{which}"] = torch.ones(1, 16, dtype=torch.long)
    return getattr(diffusers, name)(**own), call
