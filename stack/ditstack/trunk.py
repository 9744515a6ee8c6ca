"""Sites: where a cache keeps and restores features. A trunk is a whole stack of blocks; a branch is a part of one."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from diffusers.hooks import HookRegistry, ModelHook
from torch import Tensor

from ditstack.blocks import Block, Branch, branches
from ditstack.pipe import FULL, OFF, Pipe
from ditstack.predictors import Predictor

HOOK = "ditstack_cache"


class Store:
    """What a cache remembers: a predictor per site, part and guidance branch; emptied when a generation begins or ends.

    Args:
        make: the predictor of a new feature at a site.
        coordinate: "sigma" counts time as the share of noise, "step" as the step's index.
    """

    def __init__(self, pipe: Pipe, make: Callable[[str], Predictor], coordinate: str = "sigma") -> None:
        self.pipe, self.make, self.coordinate = pipe, make, coordinate
        self.memories: dict[Hashable, Predictor] = {}
        assert pipe.cadence is not None
        pipe.cadence.on_forget.append(self.memories.clear)
        pipe.store = self

    def keep(self, site: str, feature: Tensor) -> None:
        key = (site, self.pipe.clock.branch)
        if key not in self.memories:
            self.memories[key] = self.make(site)
        self.memories[key].keep(feature, self._time())
        for tell in self.pipe.listeners:
            tell(site, feature)

    def recall(self, site: str) -> Tensor:
        return self.memories[(site, self.pipe.clock.branch)].at(self._time())

    def _time(self) -> float:
        clock = self.pipe.clock
        return clock.time() if self.coordinate == "sigma" else float(clock.index)


def cache_trunks(pipe: Pipe, store: Store) -> list[str]:
    """Skip every block on skipped steps; the residual of the image stream over the whole stack is the feature.

    Returns:
        The names of the sites.
    """
    sites = []
    for name, blocks in pipe.blocks.items():
        trunk = _Trunk(pipe, store, name)
        for place, block in enumerate(blocks):
            _hook(block.module, _InTrunk(trunk, block, place == 0, place == len(blocks) - 1))
        sites.append(name)
    return sites


def cache_branches(pipe: Pipe, store: Store) -> list[str]:
    """Skip the attention and MLP branches of every block; norms, gates and residual streams stay fresh."""
    sites = []
    for name, blocks in pipe.blocks.items():
        for block in blocks:
            for branch in branches(block):
                sites.append(f"{name}.{block.name}.{len(sites)}")
                _hook_branch(pipe, store, sites[-1], branch)
    return sites


def _hook(module: torch.nn.Module, hook: ModelHook) -> None:
    HookRegistry.check_if_exists_or_initialize(module).register_hook(hook, HOOK)


def _hook_branch(pipe: Pipe, store: Store, site: str, branch: Branch) -> None:
    _hook(branch.site, _AtBranch(pipe, store, site))
    for module in branch.silenced:
        _hook(module, _Silent(pipe))


class _Trunk:
    """The state that the hooks of one stack of blocks share."""

    def __init__(self, pipe: Pipe, store: Store, site: str) -> None:
        self.pipe, self.store, self.site = pipe, store, site
        self.entered: Tensor | None = None

    def enter(self, stream: Tensor) -> None:
        self.entered = stream

    def leave_full(self, stream: Tensor) -> None:
        assert self.entered is not None
        self.store.keep(self.site, stream - self.entered)
        self.entered = None

    def leave_skipped(self) -> Tensor:
        assert self.entered is not None
        stream, self.entered = self.entered, None
        return stream + self.store.recall(self.site)


class _InTrunk(ModelHook):
    """One block of a trunk: runs, or passes its input on."""

    def __init__(self, trunk: _Trunk, block: Block, first: bool, last: bool) -> None:
        super().__init__()
        self.trunk, self.block, self.first, self.last = trunk, block, first, last
        self.form = 0

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        kind = self.trunk.pipe.kind
        if kind == OFF:
            return self.fn_ref.original_forward(*args, **kwargs)
        if self.first:
            self.trunk.enter(self.block.stream(args, kwargs))
        if kind != FULL:
            stream = self.trunk.leave_skipped() if self.last else self.block.stream(args, kwargs)
            return self.block.like(stream, args, kwargs, self.form)
        out = self.fn_ref.original_forward(*args, **kwargs)
        self.form = 0 if isinstance(out, Tensor) else len(out)
        if self.last:
            self.trunk.leave_full(self.block.output(out))
        return out


class _AtBranch(ModelHook):
    """One branch of a block: runs and is kept, or is recalled. A branch may return one tensor or several."""

    def __init__(self, pipe: Pipe, store: Store, site: str) -> None:
        super().__init__()
        self.pipe, self.store, self.site = pipe, store, site
        self.form = 0

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        if self.pipe.kind not in (OFF, FULL):
            parts = tuple(self.store.recall(f"{self.site}.{part}") for part in range(max(self.form, 1)))
            return parts if self.form else parts[0]
        out = self.fn_ref.original_forward(*args, **kwargs)
        if self.pipe.kind == FULL:
            self.form = 0 if isinstance(out, Tensor) else len(out)
            for part, tensor in enumerate(out if self.form else (out,)):
                self.store.keep(f"{self.site}.{part}", tensor)
        return out


class _Silent(ModelHook):
    """A module whose output nobody reads on a skipped step: it passes its input on."""

    def __init__(self, pipe: Pipe) -> None:
        super().__init__()
        self.pipe = pipe

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        if self.pipe.kind in (OFF, FULL):
            return self.fn_ref.original_forward(*args, **kwargs)
        return args[0] if args else kwargs["hidden_states"]
