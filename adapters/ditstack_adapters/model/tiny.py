"""The embedded model: a small FluxPipeline, really trained on captioned shapes, that makes pictures on any laptop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ditstack.plugin import Model

if TYPE_CHECKING:
    from .embedded.judge import ShapesJudge

FOLDER = Path(__file__).parent / "embedded" / "tiny"


class Tiny(Model):
    """64 x 64 pictures; guidance is a second pass with an empty prompt."""

    transformer_class: ClassVar[str] = "FluxTransformer2DModel"
    stacks: ClassVar[tuple[str, ...]] = ("transformer_blocks", "single_transformer_blocks")
    cut_into_rows: ClassVar[bool] = True
    guidance: ClassVar[str] = "true_cfg_scale"
    call: ClassVar[dict[str, Any]] = {"max_sequence_length": 16}

    source: str = "embedded"
    """`embedded`, a hub id, or a folder that `save_pretrained` wrote."""

    def files(self) -> str:
        return str(FOLDER) if self.source == "embedded" else self.source

    def load(self, wait: bool = False) -> Any:
        return Model.load(self.model_copy(update={"source": self.files()}), wait)

    def judge(self) -> ShapesJudge | None:
        """Of the embedded model; another one's prompts and pictures need not be of its kind."""
        from .embedded.judge import ShapesJudge

        return ShapesJudge() if self.source == "embedded" else None
