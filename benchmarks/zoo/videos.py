"""Videos with the parts of the tiny ones: Wan, LTX, CogVideoX, HunyuanVideo and SkyReels beyond text."""
# pyright: reportPrivateImportUsage=false, reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

from typing import Any

import diffusers
import torch

from ditstack.testing import tiny_pipelines as tiny
from ditstack.testing.tiny_pipelines import parts
from ditstack.testing.tiny_pipelines.parts import TEXT_WIDTH
from ditstack.testing.tiny_pipelines.video import HEAD_WIDTH, HEADS

from .flux import _given
from .registry import FTFY, PROMPT, Made, case, noise, picture, stand_in, video
from .shelf import call_of

WIDTH = HEADS * HEAD_WIDTH


def _changed(parts_: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The parts, with a transformer of other fields."""
    kind, config = type(parts_["transformer"]), parts_["transformer"].config
    plain = {key: value for key, value in config.items() if not key.startswith("_")}
    return {**parts_, "transformer": kind.from_config({**plain, **fields})}


@case("WanVideoToVideoPipeline")
def wan_video(name: str) -> Made:
    stand_in(getattr(diffusers, name), ftfy=FTFY)
    pipeline = getattr(diffusers, name)(**_given(tiny.wan()))
    given = {"prompt": [PROMPT], "height": 32, "width": 32, "max_sequence_length": 64}
    return pipeline, {**given, "video": video(5), "strength": 0.67}


@case("WanImageToVideoPipeline")
def wan_image(name: str) -> Made:
    return tiny.wan_i2v(two_transformers=False), {**call_of("WanPipeline"), "image": picture(32)}


@case("WanImageToVideoPipeline (2.2, 5B)")
def wan_5b(name: str) -> Made:
    return tiny.wan_5b_i2v(), {**call_of("WanPipeline"), "image": picture(32)}


@case("WanPipeline (2.2, 5B)")
def wan_5b_text(name: str) -> Made:
    return tiny.wan_5b(), call_of("WanPipeline")


@case("WanVACEPipeline")
def wan_vace(name: str) -> Made:
    stand_in(diffusers.WanVACEPipeline, ftfy=FTFY)
    own = _given(tiny.wan())
    own["transformer"] = diffusers.WanVACETransformer3DModel(
        in_channels=4, out_channels=4, num_layers=4, attention_head_dim=HEAD_WIDTH, num_attention_heads=HEADS,
        text_dim=TEXT_WIDTH, freq_dim=64, ffn_dim=WIDTH, rope_max_seq_len=32, vace_layers=[0, 2],
        vace_in_channels=2 * 4 + 16,
    )  # fmt: skip
    return getattr(diffusers, name)(**own), {**call_of("WanPipeline"), "prompt": PROMPT, "video": video(5)}


@case("LTXImageToVideoPipeline")
def ltx_image(name: str) -> Made:
    pipeline = getattr(diffusers, name)(**_given(tiny.ltx()))
    return pipeline, {**call_of("LTXPipeline"), "image": picture(32)}


@case("LTXConditionPipeline")
def ltx_condition(name: str) -> Made:
    pipeline = getattr(diffusers, name)(**{**_given(tiny.ltx()), "scheduler": parts.flow()})
    return pipeline, {**call_of("LTXPipeline"), "image": picture(32)}


@case("CogVideoXImageToVideoPipeline", "CogVideoXFunControlPipeline")
def cogvideo(name: str) -> Made:
    pipeline = getattr(diffusers, name)(**_changed(_given(tiny.cogvideo()), in_channels=8))
    given = call_of("CogVideoXPipeline")
    if "Image" in name:
        return pipeline, {**given, "image": picture(32)}
    del given["num_frames"]
    return pipeline, {**given, "control_video": video(9)}


@case("CogVideoXVideoToVideoPipeline")
def cogvideo_video(name: str) -> Made:
    pipeline = getattr(diffusers, name)(**_given(tiny.cogvideo()))
    given = call_of("CogVideoXPipeline")
    del given["num_frames"]
    return pipeline, {**given, "video": video(9), "strength": 0.67}


@case("HunyuanSkyreelsImageToVideoPipeline")
def hunyuan_skyreels(name: str) -> Made:
    pipeline = getattr(diffusers, name)(**_changed(_given(tiny.hunyuan_video()), in_channels=8))
    return pipeline, {**call_of("HunyuanVideoPipeline"), "image": picture(32), "true_cfg_scale": 1.0}


@case("HunyuanVideoImageToVideoPipeline")
def hunyuan_image(name: str) -> Made:
    own = _changed(_given(tiny.hunyuan_video()), in_channels=2 * 4 + 1, image_condition_type="latent_concat")
    own["image_processor"] = None
    pipeline = getattr(diffusers, name)(**own)
    given = {
        key: one for key, one in call_of("HunyuanVideoPipeline").items() if key not in ("prompt", "prompt_template")
    }
    told = {"prompt_embeds": noise(1, 24, TEXT_WIDTH), "pooled_prompt_embeds": noise(1, TEXT_WIDTH)}
    mask = torch.ones(1, 24, dtype=torch.bool)
    return pipeline, {**given, **told, "prompt_attention_mask": mask, "image": picture(32)}


def _skyreels(**fields: Any) -> dict[str, Any]:
    own = _given(tiny.wan())
    own["transformer"] = diffusers.SkyReelsV2Transformer3DModel(
        **{
            "in_channels": 4, "out_channels": 4, "num_layers": 3, "attention_head_dim": HEAD_WIDTH,
            "num_attention_heads": HEADS, "text_dim": TEXT_WIDTH, "freq_dim": 64, "ffn_dim": WIDTH,
            "rope_max_seq_len": 32, **fields,
        }
    )  # fmt: skip
    return own


@case("SkyReelsV2Pipeline")
def skyreels(name: str) -> Made:
    stand_in(diffusers.SkyReelsV2Pipeline, ftfy=FTFY)
    return getattr(diffusers, name)(**_skyreels()), call_of("WanPipeline")


@case("SkyReelsV2DiffusionForcingPipeline", "SkyReelsV2DiffusionForcingVideoToVideoPipeline",
      "SkyReelsV2DiffusionForcingImageToVideoPipeline")  # fmt: skip
def skyreels_forcing(name: str) -> Made:
    own = _skyreels(inject_sample_info=True)
    stand_in(getattr(diffusers, name), ftfy=FTFY)
    more: dict[str, Any] = {"base_num_frames": 5, "ar_step": 0}
    if "ImageTo" in name:
        more |= {"image": picture(32)}
    if "VideoTo" in name:
        more |= {"video": video(5), "num_frames": 9, "overlap_history": 3}
    return getattr(diffusers, name)(**own), {**call_of("WanPipeline"), **more}


@case("SkyReelsV2ImageToVideoPipeline")
def skyreels_image(name: str) -> Made:
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    stand_in(diffusers.SkyReelsV2ImageToVideoPipeline, ftfy=FTFY)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    looks = CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes, projection_dim=16, image_size=32, patch_size=16))
    own = {**_skyreels(in_channels=2 * 4 + 2, image_dim=16, added_kv_proj_dim=WIDTH), "image_encoder": looks}
    own["image_processor"] = CLIPImageProcessor(crop_size=32, size=32)
    return getattr(diffusers, name)(**own), {**call_of("WanPipeline"), "image": picture(32)}
