"""FLUX.1: any FluxPipeline, from the hub or a folder; guidance is distilled into the model."""

from __future__ import annotations

from typing import ClassVar

from ditstack.model import Model


class Flux(Model):
    """Double-stream blocks, then single-stream blocks; both return (text, image)."""

    pipeline_class: ClassVar[str] = "FluxPipeline"
    stacks: ClassVar[tuple[str, ...]] = ("transformer_blocks", "single_transformer_blocks")

    source: str = "black-forest-labs/FLUX.1-dev"
