"""DiT (arXiv 2212.09748): pictures of ImageNet classes; a prompt is a class number or one of its names."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, ClassVar

from ditstack.plugin import BadPipeline, Capability, Model

if TYPE_CHECKING:
    from ditstack.plugin import PassInputs

CLASSES = 1000


class DiT(Model):
    """Class-conditional; one batched pass for guidance; blocks return a bare tensor."""

    transformer_class: ClassVar[str] = "DiTTransformer2DModel"
    takes_caches: ClassVar[bool] = False
    stacks: ClassVar[tuple[str, ...]] = ("transformer_blocks",)
    cut_into_rows: ClassVar[bool] = True

    source: str = "facebook/DiT-XL-2-256"
    """A hub id, or a folder that `save_pretrained` wrote."""

    @property
    def gives(self) -> frozenset[Capability]:
        return super().gives - {Capability.LORAS}

    def unguided(self, inputs: PassInputs) -> list[bool]:
        """The rows of the class that stands for none."""
        return [int(one) == CLASSES for one in inputs.kwargs["class_labels"]]

    def ask(self, pipeline: Any, prompts: list[str]) -> dict[str, Any]:
        return {"class_labels": [_label(pipeline, prompt.strip()) for prompt in prompts]}


def _label(pipeline: Any, prompt: str) -> int:
    if prompt.isdecimal() and int(prompt) < CLASSES:
        return int(prompt)
    if prompt not in pipeline.labels:
        near = difflib.get_close_matches(prompt, pipeline.labels, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise BadPipeline(f"found the prompt {prompt!r}; wanted a class from 0 to {CLASSES - 1} or its name{hint}")
    return pipeline.get_label_ids([prompt])[0]
