"""Blocks: what a transformer's blocks look like from outside: what goes in, what comes out, what is inside."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.hooks._helpers import TransformerBlockRegistry

from ditstack.errors import BadPipeline

BRANCHES = re.compile(r"attn\d?|attention|ff|ff_context|ffn|feed_forward|mlp|img_mlp|txt_mlp")
"""The names of attentions and MLPs inside a block."""
ATTENTIONS = re.compile(r"attn\d?|attention")
"""Those of attentions alone."""


@dataclass
class Block:
    """One block.

    Attributes:
        hidden: the argument that holds the image (or video) stream.
        index: the place of that stream in what the block returns; None where it returns a bare tensor.
        others: further streams that somebody reads after the trunk: argument and place.
    """

    name: str
    module: torch.nn.Module
    hidden: str = "hidden_states"
    index: int | None = None
    parameters: list[str] = field(default_factory=list)
    others: tuple[tuple[str, int], ...] = ()
    _continued: dict[int, list[str]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def places(self) -> dict[str, int]:
        """The place in the output of every stream, by its argument; the image stream comes first."""
        return {self.hidden: self.index or 0, **dict(self.others)}

    def argument(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The value that a call gave to the parameter `name`."""
        if name in kwargs:
            return kwargs[name]
        place = self.parameters.index(name) if name in self.parameters else len(args)
        return args[place] if place < len(args) else None

    def entering(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, torch.Tensor]:
        """What a call was given, by stream."""
        return {name: self.argument(name, args, kwargs) for name in self.places}

    def leaving(self, out: Any) -> dict[str, torch.Tensor]:
        """What the block returned, by stream."""
        if isinstance(out, torch.Tensor):
            return {self.hidden: out}
        return {name: out[place] for name, place in self.places.items()}

    def like(self, streams: dict[str, torch.Tensor], args: tuple[Any, ...], kwargs: dict[str, Any], form: int) -> Any:
        """What the block would return, in its own form, with these streams and the text, if any, passed through.

        Args:
            form: how many values the block returns; 0 for a bare tensor.
        """
        if form == 0:
            return streams[self.hidden]
        names = self.continued(form)
        return tuple([streams[name] if name in streams else self.argument(name, args, kwargs) for name in names])

    def through(self, args: tuple[Any, ...], kwargs: dict[str, Any], form: int) -> Any:
        """What the block would return if it did nothing."""
        given = [self.argument(name, args, kwargs) for name in self.continued(form or 1)]
        return tuple(given) if form else given[0]

    def continued(self, form: int) -> list[str]:
        """The argument that each of `form` returned values continues."""
        names = self._continued.get(form)
        if names is None:
            names = self._continued[form] = ["encoder_hidden_states"] * form
            for name, place in self.places.items():
                names[place] = name
        return names


def find_blocks(transformer: torch.nn.Module, stacks: tuple[str, ...] = ()) -> list[Block]:
    """The blocks of a transformer in the order in which they run; diffusers must know their classes.

    Args:
        stacks: the names of its ModuleLists; empty takes every ModuleList of blocks at its top level.

    Raises:
        BadPipeline: it has none, or diffusers does not know what they return.
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


def parameters_of(module: torch.nn.Module) -> list[str]:
    """The names of what a module's forward takes."""
    return list(inspect.signature(type(module).forward).parameters)[1:]


def _looks_like_block(module: torch.nn.Module) -> bool:
    return "hidden_states" in parameters_of(module)


def _block(name: str, module: torch.nn.Module) -> Block:
    try:
        known = TransformerBlockRegistry.get(type(module))
    except ValueError:
        kind = type(module).__name__
        raise BadPipeline(f"what a {kind} returns is not known beforehand; `model: auto` finds it out") from None
    hidden, index = known.hidden_states_argument_name, known.return_hidden_states_index
    return Block(name, module, hidden, index, parameters_of(module))


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
    return [Branch(part) for name, part in parts.items() if BRANCHES.fullmatch(name)]
