"""FLUX.2, Cosmos, Bria, CogView, Ovis and other picture and world models with a transformer class of their own."""
# pyright: reportPrivateImportUsage=false, reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import torch

from ditstack.testing.tiny_pipelines import parts
from ditstack.testing.tiny_pipelines.newer import flux2_parts
from ditstack.testing.tiny_pipelines.parts import TEXT_WIDTH

from .registry import PROMPT, Made, case, mask, noise, picture, stand_in

HEADS = {"attention_head_dim": 64, "num_attention_heads": 2}
WIDTH = 128


@case("Flux2Pipeline", "Flux2KleinPipeline", "Flux2KleinInpaintPipeline", "Flux2KleinKVPipeline")
def flux2(name: str) -> Made:
    pipeline = getattr(diffusers, name)(**flux2_parts(guidance_embeds=name == "Flux2Pipeline"))
    call: dict[str, Any] = {"prompt_embeds": noise(1, 24, 3 * TEXT_WIDTH), "height": 32, "width": 32}
    if name in ("Flux2KleinPipeline", "Flux2KleinInpaintPipeline"):
        call["negative_prompt_embeds"] = -noise(1, 24, 3 * TEXT_WIDTH)
    if name != "Flux2Pipeline":
        call["image"] = picture(64) if "KV" not in name else [picture(64)]
    if "Inpaint" in name:
        call |= {"mask_image": mask(64), "strength": 0.67}
    return pipeline, call


def _cosmos_coder() -> Any:
    return diffusers.AutoencoderKLCosmos(
        latent_channels=4, encoder_block_out_channels=(8, 8, 8, 8), decode_block_out_channels=(8, 8, 8, 8),
        attention_resolutions=(8,), resolution=64, num_layers=1, patch_size=4, spatial_compression_ratio=4,
        temporal_compression_ratio=4, latents_mean=[0.0] * 16 * 4, latents_std=[1.0] * 16 * 4,
    )  # fmt: skip


def _resized(picture_: torch.Tensor, size: Any, **_: Any) -> torch.Tensor:
    return torch.nn.functional.interpolate(picture_, size=tuple(size))


def _to_tensor(frame: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(frame)).permute(2, 0, 1) / 255


_FUNCTIONAL = SimpleNamespace(resize=_resized, to_tensor=_to_tensor)
TORCHVISION = SimpleNamespace(
    transforms=SimpleNamespace(functional=_FUNCTIONAL, InterpolationMode=SimpleNamespace(NEAREST="nearest"))
)


class _Harmless(torch.nn.Module):
    """Cosmos asks for a guard; this one lets everything pass."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def check_text_safety(self, prompt: str) -> bool:
        return True

    def check_video_safety(self, video: Any) -> Any:
        return video

    @property
    def device(self) -> torch.device:
        return self.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.weight.dtype


@case("CosmosTextToWorldPipeline", "CosmosVideoToWorldPipeline", "Cosmos2TextToImagePipeline",
      "Cosmos2VideoToWorldPipeline", "Cosmos2_5_PredictBasePipeline")  # fmt: skip
def cosmos(name: str) -> Made:
    stand_in(diffusers.CosmosTransformer3DModel, transforms=TORCHVISION.transforms)
    stand_in(getattr(diffusers, name), torchvision=TORCHVISION)
    first, worlds = name.startswith("CosmosT") or name.startswith("CosmosV"), "VideoToWorld" in name or "2_5" in name
    transformer = diffusers.CosmosTransformer3DModel(
        in_channels=4 + worlds, out_channels=4, num_layers=3, mlp_ratio=2, text_embed_dim=TEXT_WIDTH,
        adaln_lora_dim=8, max_size=(4, 32, 32), concat_padding_mask=True,
        extra_pos_embed_type="learnable" if first else None, encoder_hidden_states_channels=TEXT_WIDTH, **HEADS,
    )  # fmt: skip
    coder = _cosmos_coder() if first else parts.kl_wan()
    scheduler: Any = (
        diffusers.EDMEulerScheduler(prediction_type="epsilon") if first else parts.flow(use_karras_sigmas=True)
    )
    if "2_5" in name:
        scheduler = diffusers.UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction")
    pipeline = getattr(diffusers, name)(
        text_encoder=None, tokenizer=None, transformer=transformer, vae=coder, scheduler=scheduler,
        safety_checker=_Harmless(),
    )  # fmt: skip
    call: dict[str, Any] = {
        "prompt_embeds": noise(1, 24, TEXT_WIDTH),
        "negative_prompt_embeds": -noise(1, 24, TEXT_WIDTH),
    }
    call |= {"height": 32, "width": 32}
    if "TextToImage" not in name:
        call["num_frames"] = 9
    if worlds:
        call["image"] = picture(32)
    return pipeline, {**call, "output_type": "latent"}


@case("CogView3PlusPipeline", "CogView4Pipeline", "CogView4ControlPipeline")
def cogview(name: str) -> Made:
    sizes = {
        "in_channels": 8 if "Control" in name else 4, "out_channels": 4, "num_layers": 3, "text_embed_dim": TEXT_WIDTH,
        "time_embed_dim": 32, "condition_dim": 16, "sample_size": 8, "pos_embed_max_size": 16, **HEADS,
    }  # fmt: skip
    three = "3" in name
    transformer = (diffusers.CogView3PlusTransformer2DModel if three else diffusers.CogView4Transformer2DModel)(
        **sizes, **({} if three else {"rope_axes_dim": (32, 32)})
    )
    scheduler = (
        diffusers.CogVideoXDDIMScheduler(prediction_type="v_prediction")
        if three
        else parts.flow(use_dynamic_shifting=True, base_shift=0.25, max_shift=0.75, base_image_seq_len=256)
    )
    pipeline = getattr(diffusers, name)(
        tokenizer=None, text_encoder=None, vae=parts.kl(), transformer=transformer, scheduler=scheduler
    )
    embeds = {"prompt_embeds": noise(1, 16, TEXT_WIDTH), "negative_prompt_embeds": -noise(1, 16, TEXT_WIDTH)}
    more = {"control_image": picture(32)} if "Control" in name else {}
    return pipeline, {**embeds, "height": 32, "width": 32, **more}


@case("BriaPipeline")
def bria(name: str) -> Made:
    transformer = diffusers.BriaTransformer2DModel(
        in_channels=16, num_layers=2, num_single_layers=3, joint_attention_dim=TEXT_WIDTH, axes_dims_rope=[16, 24, 24],
        **HEADS,
    )  # fmt: skip
    pipeline = diffusers.BriaPipeline(
        transformer=transformer, scheduler=parts.flow(), vae=parts.kl(), text_encoder=parts.t5(),
        tokenizer=parts.t5_tokenizer(),
    )  # fmt: skip
    return pipeline, {"prompt": [PROMPT], "height": 32, "width": 32, "max_sequence_length": 64}


@case("OvisImagePipeline")
def ovis(name: str) -> Made:
    transformer = diffusers.OvisImageTransformer2DModel(
        in_channels=16, out_channels=16, num_layers=2, num_single_layers=3, joint_attention_dim=TEXT_WIDTH,
        axes_dims_rope=(16, 24, 24), **HEADS,
    )  # fmt: skip
    pipeline = diffusers.OvisImagePipeline(
        scheduler=parts.flow(use_dynamic_shifting=True), vae=parts.kl(), text_encoder=None, tokenizer=None,
        transformer=transformer,
    )  # fmt: skip
    embeds = {"prompt_embeds": noise(1, 16, TEXT_WIDTH), "negative_prompt_embeds": -noise(1, 16, TEXT_WIDTH)}
    return pipeline, {**embeds, "negative_prompt": None, "height": 32, "width": 32}


@case("PRXPipeline")
def prx(name: str) -> Made:
    transformer = diffusers.PRXTransformer2DModel(
        in_channels=4, context_in_dim=TEXT_WIDTH, hidden_size=WIDTH, num_heads=2, depth=3, axes_dim=[32, 32]
    )
    pipeline = diffusers.PRXPipeline(
        transformer=transformer, scheduler=parts.flow(), text_encoder=None, tokenizer=None, vae=parts.kl()
    )
    embeds = {"prompt_embeds": noise(1, 16, TEXT_WIDTH), "negative_prompt_embeds": -noise(1, 16, TEXT_WIDTH)}
    masks = {f"{kind}prompt_attention_mask": torch.ones(1, 16, dtype=torch.bool) for kind in ("", "negative_")}
    return pipeline, {**embeds, **masks, "height": 32, "width": 32, "use_resolution_binning": False}


@case("MochiPipeline")
def mochi(name: str) -> Made:
    transformer = diffusers.MochiTransformer3DModel(
        num_layers=3, pooled_projection_dim=16, in_channels=12, text_embed_dim=TEXT_WIDTH, time_embed_dim=8,
        max_sequence_length=16, attention_head_dim=64, num_attention_heads=2,
    )  # fmt: skip
    pipeline = diffusers.MochiPipeline(
        scheduler=parts.flow(), vae=None, text_encoder=None, tokenizer=None, transformer=transformer
    )
    embeds = {"prompt_embeds": noise(1, 16, TEXT_WIDTH), "negative_prompt_embeds": -noise(1, 16, TEXT_WIDTH)}
    masks = {f"{kind}prompt_attention_mask": torch.ones(1, 16, dtype=torch.bool) for kind in ("", "negative_")}
    return pipeline, {**embeds, **masks, "height": 32, "width": 32, "num_frames": 7, "output_type": "latent"}


@case("LattePipeline")
def latte(name: str) -> Made:
    transformer = diffusers.LatteTransformer3DModel(
        in_channels=4, out_channels=8, num_layers=3, cross_attention_dim=WIDTH, attention_bias=True, sample_size=8,
        patch_size=2, activation_fn="gelu-approximate", num_embeds_ada_norm=1000, norm_type="ada_norm_single",
        norm_elementwise_affine=False, caption_channels=TEXT_WIDTH, video_length=2, **HEADS,
    )  # fmt: skip
    pipeline = diffusers.LattePipeline(
        tokenizer=parts.t5_tokenizer(), text_encoder=parts.t5(), vae=parts.kl(), transformer=transformer,
        scheduler=diffusers.DDIMScheduler(),
    )  # fmt: skip
    sizes = {"height": 16, "width": 16, "video_length": 2, "clean_caption": False, "output_type": "latent"}
    return pipeline, {"prompt": PROMPT, "negative_prompt": "", **sizes}


@case("EasyAnimatePipeline")
def easyanimate(name: str) -> Made:
    transformer = diffusers.EasyAnimateTransformer3DModel(
        in_channels=4, out_channels=4, patch_size=2, sample_width=8, sample_height=8, num_layers=3, mmdit_layers=3,
        time_embed_dim=8, text_embed_dim=TEXT_WIDTH, **HEADS,
    )  # fmt: skip
    coder = diffusers.AutoencoderKLMagvit(
        latent_channels=4, block_out_channels=[8, 8, 8, 8], layers_per_block=1, norm_num_groups=4,
        down_block_types=["SpatialDownBlock3D", "SpatialTemporalDownBlock3D", "SpatialTemporalDownBlock3D",
                          "SpatialTemporalDownBlock3D"],
        up_block_types=["SpatialUpBlock3D", "SpatialTemporalUpBlock3D", "SpatialTemporalUpBlock3D",
                        "SpatialTemporalUpBlock3D"],
    )  # fmt: skip
    pipeline = diffusers.EasyAnimatePipeline(
        vae=coder, text_encoder=None, tokenizer=None, transformer=transformer, scheduler=parts.flow()
    )
    embeds = {"prompt_embeds": noise(1, 16, TEXT_WIDTH), "negative_prompt_embeds": -noise(1, 16, TEXT_WIDTH)}
    masks = {f"{kind}prompt_attention_mask": torch.ones(1, 16, dtype=torch.bool) for kind in ("", "negative_")}
    sizes = {"height": 32, "width": 32, "num_frames": 5, "output_type": "latent"}
    return pipeline, {**embeds, **masks, **sizes}


@case("StableAudioPipeline")
def stable_audio(name: str) -> Made:
    from diffusers.pipelines.stable_audio import StableAudioProjectionModel

    transformer = diffusers.StableAudioDiTModel(
        sample_size=32, in_channels=4, num_layers=3, num_key_value_attention_heads=2, out_channels=4,
        cross_attention_dim=WIDTH, time_proj_dim=16, global_states_input_dim=2 * TEXT_WIDTH,
        cross_attention_input_dim=TEXT_WIDTH, **HEADS,
    )  # fmt: skip
    coder = diffusers.AutoencoderOobleck(
        encoder_hidden_size=8, downsampling_ratios=[2, 4], channel_multiples=[1, 2], decoder_channels=8,
        decoder_input_channels=4, audio_channels=2, sampling_rate=16,
    )  # fmt: skip
    projection = StableAudioProjectionModel(
        text_encoder_dim=TEXT_WIDTH, conditioning_dim=TEXT_WIDTH, min_value=0, max_value=32
    )
    pipeline = diffusers.StableAudioPipeline(
        vae=coder, text_encoder=parts.t5(), projection_model=projection, tokenizer=parts.t5_tokenizer(),
        transformer=transformer, scheduler=diffusers.EDMDPMSolverMultistepScheduler(solver_order=2),
    )  # fmt: skip
    return pipeline, {"prompt": [PROMPT], "audio_end_in_s": 2.0}
