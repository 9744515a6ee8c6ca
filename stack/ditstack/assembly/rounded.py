"""Rounded: what diffusers cannot do with weights that a stage has rounded in place is refused in a sentence."""

from __future__ import annotations

import functools
from typing import Any, NoReturn

import torch

from ditstack.errors import BadPipeline

INSTEAD = {
    "save_pretrained": "save_pretrained cannot write: save the pipeline before `apply`, which rounds it anew",
    "fuse_qkv_projections": "fuse_qkv_projections cannot join: load the pipeline again, and fuse before `apply`",
}
"""Methods of a transformer that read plain weights, and what to do."""


def refuse_on_rounded(module: torch.nn.Module, said: str) -> None:
    """Let a transformer's methods that read plain weights say so, rather than fail in a backend or write nonsense.

    Args:
        said: the stage and the method that rounded it.
    """
    for name, instead in INSTEAD.items():
        if hasattr(module, name):
            sentence = f"the weights of this {type(module).__name__} were rounded in place by {said}, which {instead}"
            setattr(module, name, functools.partial(_refuse, sentence))


def _refuse(sentence: str, *_: Any, **__: Any) -> NoReturn:
    raise BadPipeline(sentence)
