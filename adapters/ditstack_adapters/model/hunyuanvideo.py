"""HunyuanVideo: guidance is distilled into the model; blocks return (video, text)."""

from __future__ import annotations

from typing import ClassVar

from ditstack.plugin import Model


class HunyuanVideo(Model):
    """Double-stream blocks, then single-stream blocks; the refiner of the text is no part of the trunk."""

    transformer_class: ClassVar[str] = "HunyuanVideoTransformer3DModel"
    stacks: ClassVar[tuple[str, ...]] = ("transformer_blocks", "single_transformer_blocks")
    conditioning_modules: ClassVar[tuple[str, ...]] = ("rope", "context_embedder")
    fps: ClassVar[int | None] = 15
    packages: ClassVar[tuple[str, ...]] = ("imageio_ffmpeg",)
    extra: ClassVar[str] = "video"

    source: str = "hunyuanvideo-community/HunyuanVideo"
    """A hub id, or a folder that `save_pretrained` wrote."""
