"""The families of 2026: FLUX.2, Qwen-Image-Edit, Wan 2.2's other tasks, HunyuanVideo 1.5 and LTX-2."""
# diffusers loads its names lazily, and annotates more narrowly than it accepts.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false

import sys
from functools import partial
from types import SimpleNamespace
from typing import Any

import diffusers
from diffusers.guiders import ClassifierFreeGuidance
from transformers import ByT5Tokenizer

from . import parts
from .image import qwen_image
from .parts import LATENTS, TEXT_WIDTH, tiny
from .video import HEAD_WIDTH, HEADS, WIDTH, wan

SIZES = {"attention_head_dim": HEAD_WIDTH, "num_attention_heads": HEADS}
LAYERS = (1, 2, 3)  # of the text encoder, whose states are put side by side


def flux2_parts(guidance_embeds: bool) -> dict[str, Any]:
    coder = diffusers.AutoencoderKLFlux2(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=LATENTS, norm_num_groups=4, layers_per_block=1,
    )  # fmt: skip
    transformer = diffusers.Flux2Transformer2DModel(
        in_channels=4 * LATENTS, num_layers=2, num_single_layers=3, joint_attention_dim=len(LAYERS) * TEXT_WIDTH,
        timestep_guidance_channels=64, axes_dims_rope=(16, 16, 16, 16), guidance_embeds=guidance_embeds, **SIZES,
    )  # fmt: skip
    tokenizer = parts.qwen_tokenizer("")
    tokenizer.chat_template = (
        "{% set said = messages[-1]['content'] %}{{ said if said is string else said[0]['text'] }}\n"
    )
    return {
        "scheduler": parts.flow(use_dynamic_shifting=True), "vae": coder, "text_encoder": parts.qwen3(),
        "tokenizer": tokenizer, "transformer": transformer,
    }  # fmt: skip


@tiny
def flux2() -> diffusers.Flux2Pipeline:
    return diffusers.Flux2Pipeline(**flux2_parts(True))


@tiny
def flux2_klein() -> diffusers.Flux2KleinPipeline:
    """Guided by a second pass."""
    return diffusers.Flux2KleinPipeline(**flux2_parts(False))


def _read_without_seeing(tokenizer: Any, text: list[str], images: Any, **more: Any) -> Any:
    """What Qwen's processor makes of the prompts; the real one needs torchvision, and brings the picture's patches."""
    return tokenizer(text, **more)


def edit_small(kind: type) -> None:
    """Keep the class from scaling the picture to a million pixels first; its module does so whatever it is given."""
    sides = (32, 32) if "Plus" in kind.__name__ else (32, 32, None)
    module: Any = sys.modules[kind.__module__]
    module.calculate_dimensions = lambda area, ratio: sides


@tiny
def qwen_image_edit() -> diffusers.QwenImageEditPipeline:
    """The picture's tokens stand behind those that are made; the text encoder does not see it here."""
    edit_small(diffusers.QwenImageEditPipeline)
    own = {**qwen_image().components, "tokenizer": None}
    pipe = diffusers.QwenImageEditPipeline(**own, processor=None)
    tokenizer = parts.qwen_tokenizer(pipe.prompt_template_encode)
    pipe.register_modules(tokenizer=tokenizer)
    pipe.processor = partial(_read_without_seeing, tokenizer)
    return pipe


def _without_ftfy() -> None:
    """Diffusers looks for ftfy, which mends text, and calls it from this module though it is not there."""
    module: Any = sys.modules[diffusers.WanImageToVideoPipeline.__module__]
    if not hasattr(module, "ftfy"):
        module.ftfy = SimpleNamespace(fix_text=lambda text: text)


@tiny
def wan_i2v(two_transformers: bool = True, boundary_ratio: float = 0.6) -> diffusers.WanImageToVideoPipeline:
    """As Wan 2.2: without an image encoder; the picture's latents and a mask beside the noise."""
    _without_ftfy()
    own = wan(two_transformers).components
    for name in ("transformer", "transformer_2")[: 1 + two_transformers]:
        config = {key: value for key, value in own[name].config.items() if not key.startswith("_")}
        own[name] = type(own[name]).from_config({**config, "in_channels": 2 * LATENTS + 2})
    return diffusers.WanImageToVideoPipeline(**own, boundary_ratio=boundary_ratio if two_transformers else None)


@tiny
def wan_5b() -> diffusers.WanPipeline:
    """Every token has a timestep of its own."""
    return diffusers.WanPipeline(**wan().components, expand_timesteps=True)


@tiny
def wan_5b_i2v() -> diffusers.WanImageToVideoPipeline:
    """The first frame's tokens have the timestep 0."""
    _without_ftfy()
    return diffusers.WanImageToVideoPipeline(**wan().components, expand_timesteps=True)


def hunyuan_video_15_parts(task_type: str = "t2v") -> dict[str, Any]:
    transformer = diffusers.HunyuanVideo15Transformer3DModel(
        in_channels=2 * LATENTS + 1, out_channels=LATENTS, num_layers=3, num_refiner_layers=1,
        text_embed_dim=TEXT_WIDTH, text_embed_2_dim=TEXT_WIDTH, image_embed_dim=16, rope_axes_dim=(16, 24, 24),
        target_size=64, task_type=task_type, **SIZES,
    )  # fmt: skip
    coder = diffusers.AutoencoderKLHunyuanVideo15(
        latent_channels=LATENTS, block_out_channels=(32, 32, 32), layers_per_block=1, spatial_compression_ratio=4,
        temporal_compression_ratio=4,
    )  # fmt: skip
    return {
        "text_encoder": parts.qwen3(), "tokenizer": parts.qwen3_tokenizer(), "transformer": transformer,
        "vae": coder, "scheduler": parts.flow(), "text_encoder_2": parts.t5(vocab_size=384),
        "tokenizer_2": ByT5Tokenizer(), "guider": ClassifierFreeGuidance(guidance_scale=3.0),
    }  # fmt: skip


@tiny
def hunyuan_video_15() -> diffusers.HunyuanVideo15Pipeline:
    """Its guider is a part of its own."""
    pipe = diffusers.HunyuanVideo15Pipeline(**hunyuan_video_15_parts())
    pipe.vae.enable_slicing()  # it cannot decode two videos at once
    pipe.prompt_template_encode_start_idx = 0  # its tiny tokenizer puts no words before the prompt's
    pipe.tokenizer_max_length = parts.TEXT_LENGTH
    pipe.tokenizer_2_max_length, pipe.vision_num_semantic_tokens = 8, 4
    return pipe


def ltx2_parts() -> dict[str, Any]:
    from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder

    transformer = diffusers.LTX2VideoTransformer3DModel(
        in_channels=LATENTS, out_channels=LATENTS, cross_attention_dim=WIDTH, audio_in_channels=4,
        audio_out_channels=4, audio_num_attention_heads=2, audio_attention_head_dim=32, audio_cross_attention_dim=64,
        num_layers=3, caption_channels=TEXT_WIDTH, rope_double_precision=False, perturbed_attn=True, **SIZES,
    )  # fmt: skip
    heads = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 1, "num_learnable_registers": None}
    connectors = LTX2TextConnectors(
        caption_channels=TEXT_WIDTH, text_proj_in_factor=4, connector_rope_base_seq_len=32,
        rope_double_precision=False,
        **{f"{kind}_connector_{name}": one for kind in ("video", "audio") for name, one in heads.items()},
    )  # fmt: skip
    coder = diffusers.AutoencoderKLLTX2Video(
        latent_channels=LATENTS, block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 16, 32),
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
        "scheduler": parts.flow(use_dynamic_shifting=True), "vae": coder, "audio_vae": sound,
        "text_encoder": parts.gemma(), "tokenizer": parts.gemma_tokenizer(), "connectors": connectors,
        "transformer": transformer, "vocoder": voice,
    }  # fmt: skip


@tiny
def ltx2() -> Any:
    """A video and its sound."""
    from diffusers.pipelines.ltx2 import LTX2Pipeline

    return LTX2Pipeline(**ltx2_parts())
