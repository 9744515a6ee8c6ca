"""A pipe with SVD-Cache on it, and the counters of blocks that ran."""

from typing import Any

from ditstack.pipeline.pipe import Pipe
from ditstack.testing.counting import block_runs, blocks_of
from ditstack_adapters.cache.svdcache import SvdCache

__all__ = ["block_runs", "blocks_of", "cached"]


def cached(pipeline: Any, **fields: Any) -> Pipe:
    """A pipe around a pipeline with SVD-Cache on it."""
    pipe = Pipe(pipeline)
    SvdCache(**{"interval": 2, **fields}).apply(pipe)
    return pipe
