"""Blocks: what a transformer's stack of blocks looks like from outside: what goes in, what comes out, what is inside."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.hooks._helpers import TransformerBlockRegistry

from ditstack.errors import BadPipeline


@dataclass
class Block:
    """One block. `hidden` names the argument that holds the image (or video) stream; `index` is its place in the output."""

    name: str
    module: torch.nn.Module
    hidden: str = "hidden_states"
    index: int | None = None
    parameters: list[str] = field(default_factory=list)

    def argument(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The value that a call gave to the parameter `name`."""
        if name in kwargs:
            return kwargs[name]
        place = self.parameters.index(name) if name in self.parameters else len(args)
        return args[place] if place < len(args) else None

    def stream(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        return self.argument(self.hidden, args, kwargs)

    def output(self, out: Any) -> torch.Tensor:
        """The image stream in what the block returned."""
        if isinstance(out, torch.Tensor):
            return out
        return out[self.index or 0]

    def like(self, hidden: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], form: int) -> Any:
        """What the block would return, in its own form, with `hidden` as the image stream and the rest passed through.

        Args:
            form: how many values the block returns; 0 for a bare tensor.
        """
        if form == 0:
            return hidden
        text = self.argument("encoder_hidden_states", args, kwargs)
        return tuple(hidden if place == (self.index or 0) else text for place in range(form))


def find_blocks(transformer: torch.nn.Module, stacks: tuple[str, ...] = ()) -> list[Block]:
    """The blocks of a transformer in the order in which they run.

    Args:
        stacks: the names of its ModuleLists; empty takes every ModuleList of blocks at its top level.

    Raises:
        BadPipeline: it has none.
    """
    names = stacks or tuple(
        name
        for name, child in transformer.named_children()
        if isinstance(child, torch.nn.ModuleList) and len(child) and _looks_like_block(child[0])
    )
    blocks = [
        _block(f"{name}.{place}", module) for name in names for place, module in enumerate(getattr(transformer, name))
    ]
    if not blocks:
        raise BadPipeline(f"{type(transformer).__name__} has no list of blocks that takes hidden_states")
    return blocks


def _looks_like_block(module: torch.nn.Module) -> bool:
    return "hidden_states" in inspect.signature(type(module).forward).parameters


def _block(name: str, module: torch.nn.Module) -> Block:
    parameters = list(inspect.signature(type(module).forward).parameters)[1:]
    try:
        known = TransformerBlockRegistry.get(type(module))
    except ValueError:
        return Block(name, module, parameters[0], None, parameters)
    return Block(name, module, known.hidden_states_argument_name, known.return_hidden_states_index, parameters)


@dataclass(frozen=True)
class Branch:
    """A part of a block whose output is added to the stream behind a gate: attention or MLP.

    On a forecast step `site` is not run; neither are `silenced`, whose outputs only it would have read.
    """

    site: torch.nn.Module
    silenced: tuple[torch.nn.Module, ...] = ()


def branches(block: Block) -> list[Branch]:
    """The attention and MLP branches of a block; FLUX-like parallel blocks have one for both."""
    parts = dict(block.module.named_children())
    if {"proj_out", "proj_mlp", "attn"} <= parts.keys():
        return [Branch(parts["proj_out"], (parts["attn"], parts["proj_mlp"]))]
    return [
        Branch(part) for name, part in parts.items() if name.startswith(("attn", "ff", "ffn", "img_mlp", "txt_mlp"))
    ]
