"""Qwen-Image (arXiv 2508.02324): two passes for guidance; blocks return (text, image)."""

from __future__ import annotations

from typing import ClassVar

from ditstack.plugin import Model


class QwenImage(Model):
    """Guided by a negative prompt, an empty one where none is given."""

    transformer_class: ClassVar[str] = "QwenImageTransformer2DModel"
    stacks: ClassVar[tuple[str, ...]] = ("transformer_blocks",)
    conditioning_modules: ClassVar[tuple[str, ...]] = ("pos_embed", "txt_norm", "txt_in")
    guidance: ClassVar[str] = "true_cfg_scale"

    source: str = "Qwen/Qwen-Image"
    """A hub id, or a folder that `save_pretrained` wrote."""
