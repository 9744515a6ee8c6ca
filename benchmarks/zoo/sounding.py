"""LTX-2, whose transformer makes a video and its sound, and HunyuanVideo 1.5, whose guider is a part of its own."""
# pyright: reportPrivateImportUsage=false, reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

from typing import Any

import diffusers
import torch

from ditstack.testing.tiny_pipelines.newer import hunyuan_video_15_parts, ltx2_parts
from ditstack.testing.tiny_pipelines.parts import TEXT_WIDTH

from .registry import Made, case, noise, picture


@case("LTX2Pipeline", "LTX2ImageToVideoPipeline", "LTX2ConditionPipeline")
def ltx2(name: str) -> Made:
    import diffusers.pipelines.ltx2 as room

    pipeline = getattr(room, name)(**ltx2_parts())
    embeds = {"prompt_embeds": noise(1, 16, 4 * TEXT_WIDTH), "negative_prompt_embeds": -noise(1, 16, 4 * TEXT_WIDTH)}
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
    image = "Image" in name
    own = hunyuan_video_15_parts("i2v" if image else "t2v")
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
