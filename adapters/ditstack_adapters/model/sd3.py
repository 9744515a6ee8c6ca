"""Stable Diffusion 3 and 3.5 (arXiv 2403.03206): one batched pass for guidance; blocks return (text, image)."""

from __future__ import annotations

from typing import ClassVar

from ditstack.plugin import Model


class SD3(Model):
    """The last block returns no text."""

    transformer_class: ClassVar[str] = "SD3Transformer2DModel"
    takes_caches: ClassVar[bool] = False
    stacks: ClassVar[tuple[str, ...]] = ("transformer_blocks",)
    cut_into_rows: ClassVar[bool] = True
    unconditional_first: ClassVar[bool] = True
    conditioning_modules: ClassVar[tuple[str, ...]] = ("context_embedder",)

    source: str = "stabilityai/stable-diffusion-3.5-medium"
    """A hub id, or a folder that `save_pretrained` wrote."""
