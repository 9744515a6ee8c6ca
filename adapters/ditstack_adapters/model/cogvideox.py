"""CogVideoX (arXiv 2408.06072): text to video; one batched pass for guidance; blocks return (video, text)."""

from __future__ import annotations

from typing import ClassVar

from ditstack.plugin import Model


class CogVideoX(Model):
    """Text and video in one sequence of attention, in two streams outside it."""

    transformer_class: ClassVar[str] = "CogVideoXTransformer3DModel"
    stacks: ClassVar[tuple[str, ...]] = ("transformer_blocks",)
    cut_into_rows: ClassVar[bool] = True
    unconditional_first: ClassVar[bool] = True
    fps: ClassVar[int | None] = 8
    packages: ClassVar[tuple[str, ...]] = ("imageio_ffmpeg",)
    extra: ClassVar[str] = "video"

    source: str = "THUDM/CogVideoX-2b"
    """A hub id, or a folder that `save_pretrained` wrote."""
