"""Counting the blocks that really ran, for tests that must fail where a cache never fires."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ditstack.pipeline.pipe import Pipe


@contextmanager
def block_runs(pipe: Pipe) -> Iterator[list[str]]:
    """The names of the blocks in the order in which they ran: a skipped block runs none of its linears."""
    seen: list[str] = []
    handles = []
    for name, blocks in pipe.blocks.items():
        for block in blocks:
            # DiT reads the embedder in its first block's norm once more after the blocks: count the attention's linears
            linears = {path: one for path, one in block.module.named_modules() if isinstance(one, torch.nn.Linear)}
            inside = next((one for path, one in linears.items() if "att" in path), next(iter(linears.values())))
            label = f"{name}.{block.name}"
            handles.append(inside.register_forward_hook(lambda *_, label=label: seen.append(label)))
    try:
        with pipe.uncompiled():
            yield seen
    finally:
        for handle in handles:
            handle.remove()


def blocks_of(pipe: Pipe) -> int:
    return sum(len(blocks) for blocks in pipe.blocks.values())
