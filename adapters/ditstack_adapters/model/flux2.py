"""FLUX.2 dev and Klein: text to image and editing; dev's guidance is distilled into it, Klein runs a second pass."""

from __future__ import annotations

from typing import Any, ClassVar

from ditstack.plugin import Model


class Flux2(Model):
    """Double-stream blocks return (text, image), then single-stream blocks on both together."""

    transformer_class: ClassVar[str] = "Flux2Transformer2DModel"
    traced: ClassVar[bool] = True

    source: str = "black-forest-labs/FLUX.2-dev"
    """A hub id, or a folder that `save_pretrained` wrote."""
    image: str | None = None
    """The picture to edit: a file; without one it paints from the text alone."""

    def ask(self, pipeline: Any, prompts: list[str]) -> dict[str, Any]:
        return {"prompt": prompts} | ({} if self.image is None else {"image": self.picture("image", self.image)})
