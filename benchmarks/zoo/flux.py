"""FLUX.1 and Chroma beyond text: inpainting, controls and control networks."""
# diffusers loads its names lazily, and annotates more narrowly than it accepts.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

from typing import Any

import diffusers
from diffusers import FluxControlNetModel

from ditstack.testing import tiny_pipelines as tiny
from ditstack.testing.tiny_pipelines.image import _flux_parts
from ditstack.testing.tiny_pipelines.parts import TEXT_WIDTH

from .registry import PROMPT, Made, case, mask, picture

SMALL = {"height": 16, "width": 16, "max_sequence_length": 64}
TWO = {"strength": 0.67}


def _call(**more: Any) -> dict[str, Any]:
    return {"prompt": [PROMPT], **SMALL, **more}


@case("FluxInpaintPipeline", "FluxKontextInpaintPipeline")
def inpaint(name: str) -> Made:
    pipeline = getattr(diffusers, name)(**_flux_parts(True))
    more = {"max_area": 256, "_auto_resize": False, "strength": 1.0} if "Kontext" in name else TWO
    return pipeline, _call(image=picture(16), mask_image=mask(16), **more)


@case("FluxControlPipeline", "FluxControlImg2ImgPipeline", "FluxControlInpaintPipeline")
def control(name: str) -> Made:
    pipeline = getattr(diffusers, name)(**_flux_parts(True, in_channels=32))
    given: dict[str, Any] = {"control_image": picture(16)}
    if "Img2Img" in name or "Inpaint" in name:
        given |= {"image": picture(16), **TWO}
    if "Inpaint" in name:
        given |= {"mask_image": mask(16)}
    return pipeline, _call(**given)


@case("FluxControlNetPipeline", "FluxControlNetImg2ImgPipeline", "FluxControlNetInpaintPipeline")
def controlnet(name: str) -> Made:
    network = FluxControlNetModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=64, num_attention_heads=2,
        joint_attention_dim=TEXT_WIDTH, pooled_projection_dim=TEXT_WIDTH, guidance_embeds=True,
        axes_dims_rope=[16, 24, 24],
    )  # fmt: skip
    pipeline = getattr(diffusers, name)(**_flux_parts(True), controlnet=network)
    given: dict[str, Any] = {"control_image": picture(16)}
    if name != "FluxControlNetPipeline":
        given |= {"image": picture(16), **TWO}
    if "Inpaint" in name:
        given |= {"mask_image": mask(16)}
    return pipeline, _call(**given)


@case("ChromaImg2ImgPipeline", "ChromaInpaintPipeline")
def chroma(name: str) -> Made:
    pipeline = getattr(diffusers, name)(**_given(tiny.chroma()))
    more = {"mask_image": mask(16)} if "Inpaint" in name else {}
    pipeline.transformer.register_to_config(guidance_embeds=False)  # the inpainting pipeline asks for it
    return pipeline, _call(image=picture(16), **TWO, **more)


def _given(pipeline: Any) -> dict[str, Any]:
    """The parts of a pipeline that are there."""
    return {name: one for name, one in pipeline.components.items() if one is not None}
