"""LTX-2 (arXiv 2601.03233): video with its sound in one transformer; blocks return (video, sound)."""

from __future__ import annotations

from typing import ClassVar

from ditstack.plugin import Model


class LTX2(Model):
    """One batched pass for guidance, and further ones where a pipeline guides by disturbed passes too."""

    transformer_class: ClassVar[str] = "LTX2VideoTransformer3DModel"
    traced: ClassVar[bool] = True
    fps: ClassVar[int | None] = 24
    packages: ClassVar[tuple[str, ...]] = ("imageio_ffmpeg",)
    extra: ClassVar[str] = "video"

    source: str = "Lightricks/LTX-2"
    """A hub id, or a folder that `save_pretrained` wrote."""
