"""Wan 2.1 and 2.2 (arXiv 2503.20314): text to video; 2.2 has a second transformer for the steps with less noise."""

from __future__ import annotations

from typing import ClassVar

from ditstack.plugin import Model


class Wan(Model):
    """Two passes for guidance; blocks return a bare tensor; each transformer is a trunk of its own."""

    transformer_class: ClassVar[str] = "WanTransformer3DModel"
    stacks: ClassVar[tuple[str, ...]] = ("blocks",)
    cut_into_rows: ClassVar[bool] = True
    conditioning_modules: ClassVar[tuple[str, ...]] = ("rope", "condition_embedder.text_embedder")
    fps: ClassVar[int | None] = 16
    packages: ClassVar[tuple[str, ...]] = ("imageio_ffmpeg",)
    extra: ClassVar[str] = "video"

    source: str = "Wan-AI/Wan2.2-T2V-A14B-Diffusers"
    """A hub id, or a folder that `save_pretrained` wrote."""
