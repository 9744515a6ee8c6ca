"""Sites: where a cache keeps and restores features. A trunk is a whole stack of blocks; a branch is a part of one."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from diffusers.hooks.hooks import ModelHook
from torch import Tensor

from ditstack.caching.feature_cache import FeatureCache, choose
from ditstack.errors import BadPipeline
from ditstack.maths.predictors import Taylor
from ditstack.pipeline.blocks import ATTENTIONS, Block, Branch, branches
from ditstack.pipeline.hooks import attach, run_original
from ditstack.pipeline.pipe import CALIBRATED, FULL, OFF, UNDECIDED, Pipe

HOOK = "ditstack_cache"

Due = Callable[[Tensor, Tensor], Tensor]
"""Which rows must run in full, (B,), from what the first block of a trunk adds to its stream now and what it added when
the row last ran in full, both (B, T, D)."""


def cache_trunks(pipe: Pipe, store: FeatureCache, due: Due | None = None) -> list[str]:
    """Skip every block on skipped steps; the residual of a stream over the whole trunk is the feature.

    Args:
        due: settles steps that the schedule leaves undecided. The first block of every trunk then always runs, and the
            feature is the residual over the blocks after it. It decides row by row: a row that is not due takes its
            reused feature even where others make the trunk run, so that no row depends on its neighbours. That is
            exact for predictors that reuse the last feature.

    Returns:
        The names of the sites.
    """
    for site, blocks in pipe.trunks.items():
        trunk = _Trunk(pipe, store, site, blocks[-1], due)
        for place, block in enumerate(blocks):
            _hook(block.module, _InTrunk(trunk, block, place == 0, place == len(blocks) - 1))
    for transformer in pipe.transformers.values():
        for path, module in transformer.named_modules():
            if path in pipe.conditioning_modules:
                _hook(module, _ConditioningModule(pipe))
    return list(pipe.trunks)


def cache_branches(pipe: Pipe, store: FeatureCache) -> list[str]:
    """Skip the attention and MLP branches of every block; norms, gates and residual streams stay fresh."""
    sites = []
    for name, blocks in pipe.blocks.items():
        for block in blocks:
            for branch in branches(block):
                sites.append(f"{name}.{block.name}.{len(sites)}")
                _hook_branch(pipe, store, sites[-1], branch)
    if not sites:
        raise BadPipeline("the blocks hold no attention or MLP by a name that is known; write granularity: trunk")
    return sites


def cache_attentions(pipe: Pipe, forecast: bool) -> list[torch.nn.Module]:
    """On calibrated steps the blocks' attentions rest; what they gave on full steps is used again, or extrapolated.

    Returns:
        The attentions.
    """
    store = FeatureCache(pipe, lambda site: Taylor(int(forecast)), "step")
    found = {
        f"{name}.{block.name}.{path}": child
        for name, blocks in pipe.blocks.items()
        for block in blocks
        for path, child in block.module.named_children()
        if ATTENTIONS.fullmatch(path)
    }
    if not found:
        raise BadPipeline("the blocks hold no attention by a name that is known; write attention: recompute")
    for site, module in found.items():
        _hook_branch(pipe, store, site, Branch(module))
    return list(found.values())


def _hook(module: torch.nn.Module, hook: ModelHook) -> None:
    attach(module, hook, HOOK)


def _hook_branch(pipe: Pipe, store: FeatureCache, site: str, branch: Branch) -> None:
    _hook(branch.site, _AtBranch(pipe, store, site))
    for module in branch.silenced:
        _hook(module, _Silent(pipe))


class _Trunk:
    """The state that the hooks of one trunk share. Its streams are those that its last block returns."""

    def __init__(self, pipe: Pipe, store: FeatureCache, site: str, last: Block, due: Due | None) -> None:
        self.passes, self.store, self.site, self.due = pipe.passes, store, site, due
        self.sites = {name: site if name == last.hidden else f"{site}.{name}" for name in last.places}
        self.entered: dict[str, Tensor] = {}

    def enter(self, streams: dict[str, Tensor]) -> None:
        self.entered = streams

    def leave_calibrated(self, streams: dict[str, Tensor]) -> dict[str, Tensor]:
        entered, self.entered = self.entered, {}
        return {
            name: entered[name] + self.store.hear(site, streams[name] - entered[name])
            for name, site in self.sites.items()
        }

    def leave_full(self, streams: dict[str, Tensor]) -> dict[str, Tensor]:
        """What is kept of a full step; where not all rows were due, what the trunk gives, else nothing."""
        entered, self.entered = self.entered, {}
        due, out = self.passes.due, {}
        for name, site in self.sites.items():
            self.store.keep(site, streams[name] - entered[name])
            if due is not None:
                out[name] = choose(due, streams[name], entered[name] + self.store.last(site))
        return out

    def leave_skipped(self) -> dict[str, Tensor]:
        entered, self.entered = self.entered, {}
        return {name: entered[name] + self.store.recall(site) for name, site in self.sites.items()}

    def after_first(self, block: Block, before: dict[str, Tensor], after: dict[str, Tensor]) -> None:
        """The first block has run, of a cache that decides after it."""
        assert self.due is not None
        site, now = f"{self.site}.first", after[block.hidden] - before[block.hidden]
        if self.passes.kind == UNDECIDED:
            self.passes.settle(self.due(now, self.store.last(site)))
        if self.passes.kind == FULL:
            self.store.keep(site, now)
        self.enter({name: after[name] for name in self.sites})


class _InTrunk(ModelHook):
    """One block of a trunk: runs, or passes its input on."""

    def __init__(self, trunk: _Trunk, block: Block, first: bool, last: bool) -> None:
        super().__init__()
        self.trunk, self.block, self.first, self.last = trunk, block, first, last
        self.form = 0

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        kind = self.trunk.passes.kind
        if kind == OFF:
            return run_original(self, args, kwargs)
        if self.first and self.trunk.due is not None:
            return self._run_first(args, kwargs)
        if self.first:
            self.trunk.enter(self.block.entering(args, kwargs))
        if kind not in (FULL, CALIBRATED):
            if not self.last:
                return self.block.through(args, kwargs, self.form)
            return self.block.like(self.trunk.leave_skipped(), args, kwargs, self.form)
        out = self._run(args, kwargs)
        if self.last and kind == CALIBRATED:
            return self.block.like(self.trunk.leave_calibrated(self.block.leaving(out)), args, kwargs, self.form)
        if self.last and (given := self.trunk.leave_full(self.block.leaving(out))):
            return self.block.like(given, args, kwargs, self.form)
        return out

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = run_original(self, args, kwargs)
        self.form = 0 if isinstance(out, Tensor) else len(out)
        return out

    def _run_first(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = self._run(args, kwargs)
        self.trunk.after_first(self.block, self.block.entering(args, kwargs), self.block.leaving(out))
        return out


class _ConditioningModule(ModelHook):
    """A module whose output only blocks read: it rests while they are skipped, and gives what it last gave.

    Where rows of a batch may run differently, that is kept of each row, if what it gives has rows.
    """

    def __init__(self, pipe: Pipe) -> None:
        super().__init__()
        self.pipe = pipe
        self.gave: dict[Hashable, Any] = {}
        assert pipe.policy is not None
        pipe.policy.on_forget.append(self.gave.clear)

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        branch, passes = self.pipe.clock.branch, self.pipe.passes
        rests = passes.kind not in (OFF, FULL, CALIBRATED, UNDECIDED)
        keys = [(branch, place) for place in passes.places(passes.rows)]
        if rests and not passes.by_row:
            return self.gave[branch]
        if rests and all(key in self.gave for key in keys):
            return torch.cat([self.gave[key] for key in keys])
        out = run_original(self, args, kwargs)
        if passes.kind not in (FULL, UNDECIDED):
            return out
        if not passes.by_row:
            self.gave[branch] = out
        elif isinstance(out, Tensor) and len(out) == passes.rows:
            self.gave.update(zip(keys, out.split(1), strict=True))
        return out


class _AtBranch(ModelHook):
    """One branch of a block: runs and is kept, or is recalled. A branch may return one tensor or several."""

    def __init__(self, pipe: Pipe, store: FeatureCache, site: str) -> None:
        super().__init__()
        self.pipe, self.store, self.site = pipe, store, site
        self.form = 0

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        if self.pipe.passes.kind not in (OFF, FULL):
            parts = tuple(self.store.recall(f"{self.site}.{part}") for part in range(max(self.form, 1)))
            return parts if self.form else parts[0]
        out = run_original(self, args, kwargs)
        if self.pipe.passes.kind == FULL:
            self.form = 0 if isinstance(out, Tensor) else len(out)
            for part, tensor in enumerate(out if self.form else (out,)):
                self.store.keep(f"{self.site}.{part}", tensor)
        return out


class _Silent(ModelHook):
    """A module whose output nobody reads on a skipped step: it passes on its inputs, as many as it returns values."""

    def __init__(self, pipe: Pipe) -> None:
        super().__init__()
        self.pipe = pipe
        self.form = 0

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        if self.pipe.passes.kind in (OFF, FULL):
            out = run_original(self, args, kwargs)
            self.form = 0 if isinstance(out, Tensor) else len(out)
            return out
        given = [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)]
        return tuple(given[: self.form]) if self.form else given[0]
