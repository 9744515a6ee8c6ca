"""PixArt-alpha (arXiv 2310.00426) and PixArt-Sigma (arXiv 2403.04692): one batched pass for guidance."""

from __future__ import annotations

from typing import Any, ClassVar

from ditstack.plugin import Capability, Model

BINNED = (32, 64, 128, 256)  # sample sizes for which diffusers knows bins of resolutions


class PixArt(Model):
    """The files say which of the two it is; blocks return a bare tensor."""

    transformer_class: ClassVar[str] = "PixArtTransformer2DModel"
    takes_caches: ClassVar[bool] = False
    stacks: ClassVar[tuple[str, ...]] = ("transformer_blocks",)
    cut_into_rows: ClassVar[bool] = True
    unconditional_first: ClassVar[bool] = True
    conditioning_modules: ClassVar[tuple[str, ...]] = ("caption_projection",)
    call: ClassVar[dict[str, Any]] = {"clean_caption": False}

    source: str = "PixArt-alpha/PixArt-XL-2-1024-MS"
    """A hub id, or a folder that `save_pretrained` wrote."""

    @property
    def gives(self) -> frozenset[Capability]:
        return super().gives - {Capability.LORAS}

    def ask(self, pipeline: Any, prompts: list[str]) -> dict[str, Any]:
        binned = pipeline.transformer.config.sample_size in BINNED
        return {"prompt": prompts} if binned else {"prompt": prompts, "use_resolution_binning": False}
