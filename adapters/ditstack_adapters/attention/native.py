"""PyTorch's own scaled dot-product attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ditstack.plugin import Adapter, Capability

if TYPE_CHECKING:
    from ditstack.plugin import Pipe


class Native(Adapter):
    """Sets diffusers' `native` backend on this pipe's attentions, whatever the environment asks for.

    `set_attention_backend` of diffusers would set it for every pipeline of the process.
    """

    neutral: ClassVar[dict[str, Any] | None] = {}

    @property
    def needs(self) -> frozenset[Capability]:
        return frozenset({Capability.FREE_ATTENTION})

    def apply(self, pipe: Pipe) -> None:
        from diffusers.models.attention_dispatch import AttentionBackendName

        from ditstack.plugin import choose_backend

        for transformer in pipe.transformers.values():
            for module in transformer.modules():
                processor = getattr(module, "processor", None)
                if hasattr(processor, "_attention_backend"):
                    choose_backend(processor, AttentionBackendName.NATIVE)
