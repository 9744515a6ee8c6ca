"""LTX-Video (arXiv 2501.00103): text to video; one batched pass for guidance; blocks return a bare tensor."""

from __future__ import annotations

from typing import ClassVar

from ditstack.plugin import Model


class LTX(Model):
    """Cross-attention to the text."""

    transformer_class: ClassVar[str] = "LTXVideoTransformer3DModel"
    stacks: ClassVar[tuple[str, ...]] = ("transformer_blocks",)
    cut_into_rows: ClassVar[bool] = True
    unconditional_first: ClassVar[bool] = True
    conditioning_modules: ClassVar[tuple[str, ...]] = ("rope", "caption_projection")
    fps: ClassVar[int | None] = 25
    packages: ClassVar[tuple[str, ...]] = ("imageio_ffmpeg",)
    extra: ClassVar[str] = "video"

    source: str = "Lightricks/LTX-Video"
    """A hub id, or a folder that `save_pretrained` wrote."""
