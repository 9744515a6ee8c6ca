"""First Block Cache as diffusers has it (github.com/chengzeyi/ParaAttention): the first block decides for the others.

Skip the rest where |R - R_last| < threshold |R_last|, R the residual of the first block, means over the whole batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from ditstack.plugin import Trunk

from ._diffusers import Thresholded

if TYPE_CHECKING:
    from ditstack.plugin import Pipe


class FirstBlockCache(Thresholded):
    """What is skipped depends on the pictures, and on all of the batch."""

    neutral: ClassVar[dict[str, Any] | None] = {"threshold": 0.0}
    trial: ClassVar[dict[str, Any]] = {"threshold": 1.5}
    per_item: ClassVar[bool] = False

    threshold: Annotated[float, Field(ge=0)] = 0.05
    """Relative change of the first block's residual below which the other blocks are skipped."""

    def kept(self, trunk: Trunk) -> float:
        return 2 * trunk.feature  # of the first block, and of those after it

    def apply(self, pipe: Pipe) -> None:
        from diffusers.hooks.first_block_cache import FirstBlockCacheConfig

        from ditstack.plugin import DiffusersCache

        self._require_alike(pipe)
        DiffusersCache(pipe, "fbcache", lambda stage, transformer: FirstBlockCacheConfig(self.threshold))
        pipe.notes.append("fbcache decides for the whole batch: a picture depends on its neighbours")

    def _require_alike(self, pipe: Pipe) -> None:
        """Diffusers takes the first block's text from the last one's: both must hand it on, or neither."""
        from diffusers.hooks._helpers import TransformerBlockRegistry

        from ditstack.plugin import BadPipeline

        for name, blocks in pipe.blocks.items():
            try:
                ends = [TransformerBlockRegistry.get(type(one.module)) for one in [*blocks[:1], *blocks[-1:]]]
            except ValueError:  # diffusers does not know them, and says so itself
                continue
            if len({one.return_encoder_hidden_states_index is None for one in ends}) > 1:
                raise BadPipeline(
                    f"diffusers' fbcache cannot run on a {type(pipe.transformers[name]).__name__}: its first blocks "
                    "hand the text on and its last ones do not; take firstblock"
                )
