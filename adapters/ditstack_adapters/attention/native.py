"""PyTorch's own scaled dot-product attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ditstack.adapter import Adapter
from ditstack.facts import Fact

if TYPE_CHECKING:
    from ditstack.pipe import Pipe


class Native(Adapter):
    """Sets diffusers' `native` backend, whatever the environment asks for."""

    neutral: ClassVar[dict[str, Any] | None] = {}

    @property
    def needs(self) -> frozenset[Fact]:
        return frozenset({Fact.FREE_ATTENTION})

    def apply(self, pipe: Pipe) -> None:
        for transformer in pipe.transformers.values():
            transformer.set_attention_backend("native")  # pyright: ignore[reportCallIssue]
