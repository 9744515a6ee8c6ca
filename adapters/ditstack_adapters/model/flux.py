"""FLUX.1: text to image, image to image, fill and Kontext; guidance is distilled into the model."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ditstack.plugin import Model

LOADERS = {
    "text": "FluxPipeline",
    "img2img": "FluxImg2ImgPipeline",
    "fill": "FluxFillPipeline",
    "kontext": "FluxKontextPipeline",
}


class Flux(Model):
    """Double-stream blocks, then single-stream blocks; both return (text, image)."""

    transformer_class: ClassVar[str] = "FluxTransformer2DModel"
    stacks: ClassVar[tuple[str, ...]] = ("transformer_blocks", "single_transformer_blocks")
    cut_into_rows: ClassVar[bool] = True
    conditioning_modules: ClassVar[tuple[str, ...]] = ("pos_embed", "context_embedder")

    source: str = "black-forest-labs/FLUX.1-dev"
    """A hub id, or a folder that `save_pretrained` wrote."""
    task: Literal["text", "img2img", "fill", "kontext"] = "text"
    """Which pipeline is loaded; one that is handed over keeps its own task."""
    image: str | None = None
    """The picture to start from: a file, for every task but text."""
    mask: str | None = None
    """Where to paint, for fill: a file that is white there."""
    strength: Annotated[float, Field(gt=0, le=1)] | None = None
    """How much of the picture img2img makes anew."""

    @model_validator(mode="after")
    def _task_has_its_pictures(self) -> Flux:
        taken = {"text": (), "img2img": ("image", "strength"), "fill": ("image", "mask"), "kontext": ("image",)}
        for name in ("image", "mask", "strength"):
            if getattr(self, name) is not None and name not in taken[self.task]:
                raise ValueError(f"task {self.task} takes no {name}")
        return self

    def loader(self) -> str:
        return LOADERS[self.task]

    def ask(self, pipeline: Any, prompts: list[str]) -> dict[str, Any]:
        given = {"image": self.picture("image", self.image)} if self.image is not None else {}
        given |= {"mask_image": self.picture("mask", self.mask, "L")} if self.mask is not None else {}
        strength = {} if self.strength is None else {"strength": self.strength}
        return {"prompt": prompts, **given, **strength}
