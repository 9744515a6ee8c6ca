"""Stable Diffusion 3, Qwen-Image, Z-Image, Sana, PixArt and others beyond text, with the parts of the tiny ones."""
# pyright: reportPrivateImportUsage=false, reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

from typing import Any

import diffusers

from ditstack.testing import tiny_pipelines as tiny
from ditstack.testing.tiny_pipelines.newer import edit_small
from ditstack.testing.tiny_pipelines.parts import TEXT_WIDTH

from .flux import TWO, _given
from .registry import PROMPT, Made, case, mask, picture
from .shelf import call_of

WIDTH = 128


@case("StableDiffusion3Img2ImgPipeline", "StableDiffusion3InpaintPipeline")
def sd3(name: str) -> Made:
    parts = _given(tiny.sd3())
    if "Inpaint" in name:  # it takes 16 channels only
        parts["vae"] = tiny.parts.kl(latents=16)
        config = {key: value for key, value in parts["transformer"].config.items() if not key.startswith("_")}
        parts["transformer"] = diffusers.SD3Transformer2DModel.from_config(
            {**config, "in_channels": 16, "out_channels": 16}
        )
    pipeline = getattr(diffusers, name)(**parts)
    more = {"mask_image": mask(16)} if "Inpaint" in name else {}
    return pipeline, {**call_of("StableDiffusion3Pipeline"), "image": picture(16), **TWO, **more}


@case("StableDiffusion3PAGPipeline", "StableDiffusion3PAGImg2ImgPipeline")
def sd3_pag(name: str) -> Made:
    pipeline = getattr(diffusers, name)(**_given(tiny.sd3()), pag_applied_layers=["blocks.1"])
    more = {"image": picture(16), **TWO} if "Img2Img" in name else {}
    return pipeline, {**call_of("StableDiffusion3Pipeline"), **more}


@case("StableDiffusion3ControlNetPipeline", "StableDiffusion3ControlNetInpaintingPipeline")
def sd3_controlnet(name: str) -> Made:
    parts = _given(tiny.sd3())
    inpaint = "Inpainting" in name
    network = diffusers.SD3ControlNetModel(
        sample_size=8, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=64, num_attention_heads=2,
        joint_attention_dim=2 * TEXT_WIDTH, caption_projection_dim=WIDTH, pooled_projection_dim=2 * TEXT_WIDTH,
        pos_embed_max_size=8, qk_norm="rms_norm", extra_conditioning_channels=1 if inpaint else 0,
    )  # fmt: skip
    pipeline = getattr(diffusers, name)(**parts, controlnet=network)
    given: dict[str, Any] = {"control_image": picture(16)}
    if inpaint:
        given["control_mask"] = mask(16)
    return pipeline, {**call_of("StableDiffusion3Pipeline"), **given}


@case("ZImageImg2ImgPipeline", "ZImageInpaintPipeline")
def z_image(name: str) -> Made:
    pipeline = getattr(diffusers, name)(**_given(tiny.z_image()))
    more = {"mask_image": mask(16)} if "Inpaint" in name else {}
    return pipeline, {**call_of("ZImagePipeline"), "image": picture(16), **TWO, **more}


@case("QwenImageImg2ImgPipeline", "QwenImageInpaintPipeline")
def qwen(name: str) -> Made:
    pipeline = getattr(diffusers, name)(**_given(tiny.qwen_image()))
    more = {"mask_image": mask(32)} if "Inpaint" in name else {}
    given = {**call_of("QwenImagePipeline"), "image": picture(32), **TWO, **more}
    return pipeline, {**given, "true_cfg_scale": 3.0, "negative_prompt": [""]}


@case("QwenImageControlNetPipeline", "QwenImageControlNetInpaintPipeline")
def qwen_controlnet(name: str) -> Made:
    inpaint = "Inpaint" in name
    network = diffusers.QwenImageControlNetModel(
        in_channels=16, out_channels=4, num_layers=2, attention_head_dim=64, num_attention_heads=2,
        joint_attention_dim=TEXT_WIDTH, axes_dims_rope=(16, 24, 24), extra_condition_channels=4 if inpaint else 0,
    )  # fmt: skip
    pipeline = getattr(diffusers, name)(**_given(tiny.qwen_image()), controlnet=network)
    given: dict[str, Any] = {"control_image": picture(32)}
    if inpaint:
        given["control_mask"] = mask(32)
    return pipeline, {**call_of("QwenImagePipeline"), **given}


def _of_picture_and_prompt() -> dict[str, Any]:
    """What an editing pipeline's text encoder would make of a prompt and a picture."""
    import torch

    from .registry import noise

    return {"prompt_embeds": noise(1, 24, TEXT_WIDTH), "prompt_embeds_mask": torch.ones(1, 24, dtype=torch.long)}


@case("QwenImageEditPipeline", "QwenImageEditPlusPipeline", "QwenImageEditInpaintPipeline")
def qwen_edit(name: str) -> Made:
    parts = {**_given(tiny.qwen_image()), "processor": None}
    pipeline = getattr(diffusers, name)(**parts)
    edit_small(type(pipeline))
    given = {**_of_picture_and_prompt(), "image": picture(32), "height": 32, "width": 32, "true_cfg_scale": 1.0}
    if "Inpaint" in name:
        given |= {"mask_image": mask(32), **TWO}
    return pipeline, given


@case("SanaPAGPipeline")
def sana_pag(name: str) -> Made:
    pipeline = getattr(diffusers, name)(**_given(tiny.sana()), pag_applied_layers="transformer_blocks.1")
    return pipeline, call_of("SanaPipeline")


@case("SanaControlNetPipeline")
def sana_controlnet(name: str) -> Made:
    parts = _given(tiny.sana())
    config = {key: value for key, value in parts["transformer"].config.items() if not key.startswith("_")}
    network = diffusers.SanaControlNetModel.from_config({**config, "num_layers": 1})
    pipeline = getattr(diffusers, name)(**parts, controlnet=network)
    return pipeline, {**call_of("SanaPipeline"), "control_image": picture(32)}


@case("SanaSprintPipeline", "SanaSprintImg2ImgPipeline")
def sana_sprint(name: str) -> Made:
    parts = _given(tiny.sana())
    config = {key: value for key, value in parts["transformer"].config.items() if not key.startswith("_")}
    parts["transformer"] = diffusers.SanaTransformer2DModel.from_config(
        {**config, "guidance_embeds": True, "qk_norm": "rms_norm_across_heads"}
    )
    parts["scheduler"] = diffusers.SCMScheduler()
    pipeline = getattr(diffusers, name)(**parts)
    more: dict[str, Any] = {"intermediate_timesteps": None}
    if "Img2Img" in name:
        more |= {"image": picture(32), **TWO}
    return pipeline, {**call_of("SanaPipeline"), **more}


@case("PixArtSigmaPAGPipeline")
def pixart_pag(name: str) -> Made:
    pipeline = getattr(diffusers, name)(**_given(tiny.pixart_sigma()), pag_applied_layers="blocks.1")
    return pipeline, call_of("PixArtSigmaPipeline")


@case("LuminaPipeline")
def lumina_next(name: str) -> Made:
    parts = _given(tiny.lumina2())
    parts["transformer"] = diffusers.LuminaNextDiT2DModel(
        sample_size=8, in_channels=4, hidden_size=96, num_layers=3, num_attention_heads=2, num_kv_heads=1,
        multiple_of=64, cross_attention_dim=TEXT_WIDTH,
    )  # fmt: skip
    pipeline = getattr(diffusers, name)(**parts)
    return pipeline, {"prompt": [PROMPT], "height": 64, "width": 64, "clean_caption": False, "max_sequence_length": 64}


@case("HunyuanDiTPipeline", "HunyuanDiTControlNetPipeline", "HunyuanDiTPAGPipeline")
def hunyuandit(name: str) -> Made:
    import torch

    from ditstack.testing.tiny_pipelines import parts

    from .registry import noise

    sizes = {
        "num_attention_heads": 2, "attention_head_dim": 64, "in_channels": 4, "patch_size": 2, "sample_size": 8,
        "hidden_size": WIDTH, "cross_attention_dim": TEXT_WIDTH, "cross_attention_dim_t5": TEXT_WIDTH,
        "pooled_projection_dim": 16, "text_len": 8, "text_len_t5": 8, "use_style_cond_and_image_meta_size": False,
    }  # fmt: skip
    own: dict[str, Any] = {
        "vae": parts.kl(levels=4), "text_encoder": None, "tokenizer": None, "safety_checker": None,
        "feature_extractor": None,
        "transformer": diffusers.HunyuanDiT2DModel(num_layers=4, **sizes), "scheduler": diffusers.DDPMScheduler(),
        "requires_safety_checker": False,
    }  # fmt: skip
    given: dict[str, Any] = {"height": 64, "width": 64, "use_resolution_binning": False}
    if "ControlNet" in name:
        own["controlnet"] = diffusers.HunyuanDiT2DControlNetModel(transformer_num_layers=4, **sizes)
        given["control_image"] = picture(64)
    if "PAG" in name:
        own["pag_applied_layers"] = "blocks.1"
    for kind in ("prompt", "negative_prompt"):
        for which in ("", "_2"):
            given[f"{kind}_embeds{which}"] = noise(1, 8, TEXT_WIDTH) * (1 if kind == "prompt" else -1)
            given[f"{kind}_attention_mask{which}"] = torch.ones(1, 8)
    pipeline = getattr(diffusers, name)(**own)
    return pipeline, given
