"""HunyuanVideo 1.5: text or a picture to video; guided by a second pass, whose scale is the pipeline's guider's."""

from __future__ import annotations

from typing import ClassVar

from ditstack.plugin import Capability, Model


class HunyuanVideo15(Model):
    """Blocks return (video, text); what two text encoders and a picture say is joined before them."""

    transformer_class: ClassVar[str] = "HunyuanVideo15Transformer3DModel"
    traced: ClassVar[bool] = True
    fps: ClassVar[int | None] = 24
    packages: ClassVar[tuple[str, ...]] = ("imageio_ffmpeg",)
    extra: ClassVar[str] = "video"

    source: str = "hunyuanvideo-community/HunyuanVideo-1.5-480p_t2v"
    """A hub id, or a folder that `save_pretrained` wrote."""

    @property
    def gives(self) -> frozenset[Capability]:
        return super().gives - {Capability.LORAS}  # its pipeline has no loader for them
