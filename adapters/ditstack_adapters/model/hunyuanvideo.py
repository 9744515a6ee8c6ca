"""HunyuanVideo: guidance is distilled into the model; blocks return (video, text)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from ditstack.plugin import Model


class HunyuanVideo(Model):
    """Double-stream blocks, then single-stream blocks; the refiner of the text is no part of the trunk."""

    transformer_class: ClassVar[str] = "HunyuanVideoTransformer3DModel"
    stacks: ClassVar[tuple[str, ...]] = ("transformer_blocks", "single_transformer_blocks")
    cut_into_rows: ClassVar[bool] = True
    conditioning_modules: ClassVar[tuple[str, ...]] = ("rope", "context_embedder")
    fps: ClassVar[int | None] = 15
    packages: ClassVar[tuple[str, ...]] = ("imageio_ffmpeg",)
    extra: ClassVar[str] = "video"

    source: str = "hunyuanvideo-community/HunyuanVideo"
    """A hub id, or a folder that `save_pretrained` wrote."""
    text_tokens: Annotated[int, Field(ge=1)] | None = None
    """How many tokens a prompt is padded to; the pipeline's own number if not given."""

    def ask(self, pipeline: Any, prompts: list[str]) -> dict[str, Any]:
        return {"prompt": prompts} | ({"max_sequence_length": self.text_tokens} if self.text_tokens else {})
