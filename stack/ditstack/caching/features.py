"""Sites: where a cache keeps and restores features. A trunk is a whole stack of blocks; a branch is a part of one."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from diffusers.hooks.hooks import ModelHook
from torch import Tensor

from ditstack.errors import BadPipeline
from ditstack.maths.predictors import Predictor, Steered, Taylor
from ditstack.pipeline.blocks import ATTENTIONS, Block, Branch, branches
from ditstack.pipeline.hooks import attach, run_original
from ditstack.pipeline.pipe import CALIBRATED, FULL, OFF, REUSED, Pipe

HOOK = "ditstack_cache"


class FeatureCache:
    """What a cache remembers: a predictor per site, part and guidance branch; emptied when a generation begins or ends.

    Args:
        make: the predictor of a new feature at a site.
        coordinate: "sigma" counts time as the share of noise, "step" as the step's index.
    """

    def __init__(self, pipe: Pipe, make: Callable[[str], Predictor], coordinate: str = "sigma") -> None:
        self.pipe, self.make, self.coordinate = pipe, make, coordinate
        self.memories: dict[Hashable, Predictor] = {}
        self._kept_at: dict[Hashable, float] = {}
        assert pipe.policy is not None
        pipe.policy.on_forget.append(self.memories.clear)
        pipe.store = self

    def keep(self, site: str, feature: Tensor) -> None:
        key = (site, self.pipe.clock.branch)
        if key not in self.memories:
            self.memories[key] = self.make(site)
        self._kept_at[key] = self._time()
        self.memories[key].keep(feature, self._kept_at[key])
        for tell in self.pipe.listeners:
            tell(site, feature)

    def hear(self, site: str, feature: Tensor) -> Tensor:
        """What a calibrated step has come to, as far as its predictor believes it."""
        memory = self.memories[(site, self.pipe.clock.branch)]
        assert isinstance(memory, Steered)
        memory.hear(feature, self._time())
        return memory.at(self._time())

    def recall(self, site: str) -> Tensor:
        key = (site, self.pipe.clock.branch)
        return self.memories[key].at(self._kept_at[key] if self.pipe.kind == REUSED else self._time())

    def _time(self) -> float:
        clock = self.pipe.clock
        return clock.time() if self.coordinate == "sigma" else float(clock.index)


def cache_trunks(pipe: Pipe, store: FeatureCache) -> list[str]:
    """Skip every block on skipped steps; the residual of a stream over the whole trunk is the feature.

    Returns:
        The names of the sites.
    """
    for site, blocks in pipe.trunks.items():
        trunk = _Trunk(pipe, store, site, blocks[-1])
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

    def __init__(self, pipe: Pipe, store: FeatureCache, site: str, last: Block) -> None:
        self.pipe, self.store = pipe, store
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

    def leave_full(self, streams: dict[str, Tensor]) -> None:
        for name, site in self.sites.items():
            self.store.keep(site, streams[name] - self.entered[name])
        self.entered = {}

    def leave_skipped(self) -> dict[str, Tensor]:
        entered, self.entered = self.entered, {}
        return {name: entered[name] + self.store.recall(site) for name, site in self.sites.items()}


class _InTrunk(ModelHook):
    """One block of a trunk: runs, or passes its input on."""

    def __init__(self, trunk: _Trunk, block: Block, first: bool, last: bool) -> None:
        super().__init__()
        self.trunk, self.block, self.first, self.last = trunk, block, first, last
        self.form = 0

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        kind = self.trunk.pipe.kind
        if kind == OFF:
            return run_original(self, args, kwargs)
        if self.first:
            self.trunk.enter(self.block.entering(args, kwargs))
        if kind not in (FULL, CALIBRATED):
            if not self.last:
                return self.block.through(args, kwargs, self.form)
            return self.block.like(self.trunk.leave_skipped(), args, kwargs, self.form)
        out = run_original(self, args, kwargs)
        self.form = 0 if isinstance(out, Tensor) else len(out)
        if self.last and kind == CALIBRATED:
            return self.block.like(self.trunk.leave_calibrated(self.block.leaving(out)), args, kwargs, self.form)
        if self.last:
            self.trunk.leave_full(self.block.leaving(out))
        return out


class _ConditioningModule(ModelHook):
    """A module whose output only blocks read: it rests while they are skipped, and gives what it last gave."""

    def __init__(self, pipe: Pipe) -> None:
        super().__init__()
        self.pipe = pipe
        self.gave: dict[Hashable, Any] = {}
        assert pipe.policy is not None
        pipe.policy.on_forget.append(self.gave.clear)

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        branch = self.pipe.clock.branch
        if self.pipe.kind not in (OFF, FULL, CALIBRATED):
            return self.gave[branch]
        out = run_original(self, args, kwargs)
        if self.pipe.kind == FULL:
            self.gave[branch] = out
        return out


class _AtBranch(ModelHook):
    """One branch of a block: runs and is kept, or is recalled. A branch may return one tensor or several."""

    def __init__(self, pipe: Pipe, store: FeatureCache, site: str) -> None:
        super().__init__()
        self.pipe, self.store, self.site = pipe, store, site
        self.form = 0

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        if self.pipe.kind not in (OFF, FULL):
            parts = tuple(self.store.recall(f"{self.site}.{part}") for part in range(max(self.form, 1)))
            return parts if self.form else parts[0]
        out = run_original(self, args, kwargs)
        if self.pipe.kind == FULL:
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
        if self.pipe.kind in (OFF, FULL):
            out = run_original(self, args, kwargs)
            self.form = 0 if isinstance(out, Tensor) else len(out)
            return out
        given = [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)]
        return tuple(given[: self.form]) if self.form else given[0]
