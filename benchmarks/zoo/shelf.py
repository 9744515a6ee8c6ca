"""Those that ditstack's own tests are made with."""

from __future__ import annotations

from typing import Any

from ditstack.testing import tiny_pipelines as tiny

from .registry import CASES, PROMPT, Made

FAMILIES = ("flux", "flux_img2img", "flux_fill", "flux_kontext", "sd3", "pixart", "pixart_sigma", "dit",
            "wan", "hunyuan_video", "qwen_image", "ltx", "cogvideo", "auraflow", "sana", "lumina2", "chroma",
            "z_image")  # fmt: skip


def call_of(kind: str) -> dict[str, Any]:
    """What a call of a tiny pipeline is given."""
    asked = {"class_labels": [7]} if kind == "DiTPipeline" else {"prompt": [PROMPT]}
    return {**asked, **tiny._of_class(kind, 1)}


def _made(family: str) -> Made:
    pipeline: Any = tiny.FAMILIES[family]()
    return pipeline, call_of(type(pipeline).__name__)


def _enter() -> None:
    for family in FAMILIES:
        CASES[type(tiny.FAMILIES[family]()).__name__] = lambda family=family: _made(family)
    CASES["WanPipeline (2.2, two transformers)"] = lambda: _made("wan_two_transformers")


_enter()
