"""Wan 2.1 and 2.2 (arXiv 2503.20314): text or a picture to video; 2.2's 14B has two transformers in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ditstack.plugin import Model

if TYPE_CHECKING:
    from ditstack.plugin import Pipe


class Wan(Model):
    """Two passes for guidance; blocks return a bare tensor; each transformer is a trunk of its own."""

    transformer_class: ClassVar[str] = "WanTransformer3DModel"
    stacks: ClassVar[tuple[str, ...]] = ("blocks",)
    cut_into_rows: ClassVar[bool] = True
    one_picture: ClassVar[bool] = True
    other_sizes: ClassVar[frozenset[str]] = frozenset({"Wan-AI/Wan2.2-TI2V-5B-Diffusers"})
    conditioning_modules: ClassVar[tuple[str, ...]] = ("rope", "condition_embedder.text_embedder")
    fps: ClassVar[int | None] = 16
    packages: ClassVar[tuple[str, ...]] = ("imageio_ffmpeg",)
    extra: ClassVar[str] = "video"

    source: str = "Wan-AI/Wan2.2-T2V-A14B-Diffusers"
    """A hub id, or a folder that `save_pretrained` wrote."""
    image: str | None = None
    """The picture to start from, for the image-to-video checkpoints: a file."""

    def ask(self, pipeline: Any, prompts: list[str]) -> dict[str, Any]:
        return {"prompt": prompts} | ({} if self.image is None else {"image": self.picture("image", self.image)})

    def wrap(self, pipeline: Any) -> Pipe:
        pipe = super().wrap(pipeline)
        if pipeline.config.get("expand_timesteps"):
            pipe.fps = 24  # 2.2's 5B
        return pipe
