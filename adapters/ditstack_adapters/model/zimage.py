"""Z-Image (arXiv 2511.22699): text to image; its transformer takes and returns a list with one picture each."""

from __future__ import annotations

from typing import ClassVar

from ditstack.plugin import Model


class ZImage(Model):
    """One batched pass for guidance; the refiners of text and noise, before the blocks, are no part of the trunk."""

    transformer_class: ClassVar[str] = "ZImageTransformer2DModel"
    takes_caches: ClassVar[bool] = False
    traced: ClassVar[bool] = True

    source: str = "Tongyi-MAI/Z-Image"
    """A hub id, or a folder that `save_pretrained` wrote."""
