"""Qwen-Image (arXiv 2508.02324): two passes for guidance; blocks return (text, image)."""

from __future__ import annotations

from typing import Any, ClassVar

from ditstack.plugin import Model


class QwenImage(Model):
    """Guided by a negative prompt, an empty one where none is given."""

    transformer_class: ClassVar[str] = "QwenImageTransformer2DModel"
    stacks: ClassVar[tuple[str, ...]] = ("transformer_blocks",)
    conditioning_modules: ClassVar[tuple[str, ...]] = ("pos_embed", "txt_norm", "txt_in")
    guidance: ClassVar[str] = "true_cfg_scale"
    one_picture: ClassVar[bool] = True

    source: str = "Qwen/Qwen-Image"
    """A hub id, or a folder that `save_pretrained` wrote."""
    image: str | None = None
    """The picture to edit, for the editing checkpoints: a file."""

    def ask(self, pipeline: Any, prompts: list[str]) -> dict[str, Any]:
        return {"prompt": prompts} | ({} if self.image is None else {"image": self.picture("image", self.image)})
