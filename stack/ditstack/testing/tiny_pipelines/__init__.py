"""Real diffusers pipelines with tiny, seeded, random fp32 weights: no network, no files, 0.1 s a picture.

They differ where an acceleration may trip: one stack of blocks or two, guidance in one batched pass, in two
passes or as an embedding, a start part-way, two transformers in turn, text tokens beside the picture's.
"""
# diffusers loads its names lazily, and annotates more narrowly than it accepts.
# pyright: reportPrivateImportUsage=false, reportCallIssue=false

from collections.abc import Callable
from functools import partial
from typing import Any
from zlib import crc32

import torch
from diffusers import DiffusionPipeline
from diffusers.image_processor import VaeImageProcessor

from .image import (
    auraflow,
    chroma,
    dit,
    flux,
    flux_fill,
    flux_img2img,
    flux_kontext,
    lumina2,
    pixart,
    pixart_sigma,
    qwen_image,
    sana,
    sd3,
    z_image,
)
from .newer import flux2, flux2_klein, hunyuan_video_15, ltx2, qwen_image_edit, wan_5b, wan_5b_i2v, wan_i2v
from .parts import TEXT_LENGTH
from .video import cogvideo, hunyuan_video, ltx, wan

FAMILIES: dict[str, Callable[[], DiffusionPipeline]] = {
    "flux": flux,
    "flux_img2img": flux_img2img,
    "flux_fill": flux_fill,
    "flux_kontext": flux_kontext,
    "sd3": sd3,
    "pixart": pixart,
    "pixart_sigma": pixart_sigma,
    "dit": dit,
    "wan": wan,
    "wan_two_transformers": partial(wan, two_transformers=True),
    "hunyuan_video": hunyuan_video,
    "qwen_image": qwen_image,
    "ltx": ltx,
    "cogvideo": cogvideo,
    "auraflow": auraflow,
    "sana": sana,
    "lumina2": lumina2,
    "chroma": chroma,
    "z_image": z_image,
    "flux2": flux2,
    "flux2_klein": flux2_klein,
    "qwen_image_edit": qwen_image_edit,
    "wan_i2v": wan_i2v,
    "wan_5b": wan_5b,
    "wan_5b_i2v": wan_5b_i2v,
    "hunyuan_video_15": hunyuan_video_15,
    "ltx2": ltx2,
}

SIDE = 16  # pixels; 16 tokens after a coder of factor 2 and patches of 2 x 2
PICTURE = torch.linspace(0, 1, 3 * SIDE * SIDE).reshape(1, 3, SIDE, SIDE)
MASK = (torch.arange(SIDE) < SIDE // 2).float().expand(1, 1, SIDE, SIDE)  # paint the left half


def _of_class(kind: str, items: int) -> dict[str, Any]:
    """What this pipeline class wants besides the prompts: a small size, but several tokens; its switches."""
    return {**_older(items), **_newer()}[kind]


def _newer() -> dict[str, dict[str, Any]]:
    """Of the families of 2026."""
    (one,) = VaeImageProcessor.numpy_to_pil(PICTURE.permute(0, 2, 3, 1).numpy())
    text = {"max_sequence_length": TEXT_LENGTH}
    large = {"height": 2 * SIDE, "width": 2 * SIDE}
    flux2 = {"height": SIDE, "width": SIDE, **text, "text_encoder_out_layers": (1, 2, 3)}
    ltx2 = {"height": 4 * SIDE, "width": 4 * SIDE, "num_frames": 9, **text}
    return {
        "Flux2Pipeline": flux2,
        "Flux2KleinPipeline": flux2,
        "QwenImageEditPipeline": {**large, **text, "image": one, "true_cfg_scale": 1.0},
        "WanImageToVideoPipeline": {**large, **text, "num_frames": 5, "image": one},
        "HunyuanVideo15Pipeline": {**large, "num_frames": 5},
        "LTX2Pipeline": {**ltx2, "stg_scale": 0.0, "audio_stg_scale": 0.0},
    }


def _older(items: int) -> dict[str, dict[str, Any]]:
    """Of all others."""
    picture = PICTURE.expand(items, 3, SIDE, SIDE)
    text = {"max_sequence_length": TEXT_LENGTH}
    small = {"height": SIDE, "width": SIDE, **text}
    large = {"height": 2 * SIDE, "width": 2 * SIDE, **text}
    template = {"template": "{}", "crop_start": 0}
    pixart = {**small, "use_resolution_binning": False, "clean_caption": False}
    return {
        "FluxPipeline": small,
        "FluxImg2ImgPipeline": {**small, "image": picture, "strength": 0.5},
        "FluxFillPipeline": {**small, "image": picture, "mask_image": MASK},
        "FluxKontextPipeline": {**small, "image": picture, "max_area": SIDE * SIDE, "_auto_resize": False},
        "StableDiffusion3Pipeline": small,
        "PixArtAlphaPipeline": pixart,
        "PixArtSigmaPipeline": pixart,
        "DiTPipeline": {},
        "WanPipeline": {**large, "num_frames": 5},
        "HunyuanVideoPipeline": {**large, "num_frames": 5, "prompt_template": template},
        "QwenImagePipeline": {**large, "true_cfg_scale": 1.0},
        "LTXPipeline": {**large, "num_frames": 9},
        "CogVideoXPipeline": {**large, "num_frames": 9},
        "AuraFlowPipeline": small,
        "SanaPipeline": {**large, "use_resolution_binning": False, "complex_human_instruction": None},
        "Lumina2Pipeline": {**large, "system_prompt": "", "max_sequence_length": TEXT_LENGTH + 16},
        "ChromaPipeline": small,
        "ZImagePipeline": small,
    }


def call(
    pipe: DiffusionPipeline,
    prompts: list[str],
    steps: int = 4,
    seed: int = 0,
    **more: Any,
) -> torch.Tensor:
    """Pictures or videos in [0, 1] (latents with output_type="latent"), one a prompt; item i has seed + i.

    Guidance is on, at the pipeline's default scale; Flux, Qwen and Hunyuan guide by a second pass when asked
    with true_cfg_scale > 1. DiT's class is a hash of the prompt. `more` may be any argument of the pipeline.
    """
    kind = type(pipe).__name__
    arguments = {"num_inference_steps": steps, "output_type": "pt", **_of_class(kind, len(prompts))}
    arguments["generator"] = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
    if kind == "DiTPipeline":
        arguments["class_labels"] = [crc32(prompt.encode()) % 1000 for prompt in prompts]
    else:
        arguments["prompt"] = list(prompts)  # ZImagePipeline writes into its list
    if "true_cfg_scale" in more:
        arguments["negative_prompt"] = [""] * len(prompts)
    return pipe(**{**arguments, **more}, return_dict=False)[0].float()
