"""Low-rank linears: between full steps a linear adds what its input's change makes of it: y = C(y) + A (B x - B C(x)).

The linear itself does not run then. Linears that read one tensor share one product with their stacked B.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ditstack.caching.corrections import Correction, read_corrections
from ditstack.caching.memory import CacheMemory
from ditstack.pipeline.hooks import InnerHook
from ditstack.pipeline.macs import for_later_steps
from ditstack.pipeline.pipe import FULL, OFF, Pipe

# B batch, T tokens, I width in, O width out, R rank; C(.) the value at the last full step, or on the line through two


class LowRankLinears(CacheMemory["_LinearMemory"]):
    """What a cache of linears remembers, and the factors by which it corrects.

    Args:
        lean: keep B C(x), R numbers a token, instead of C(x); the numbers that come out are the same.
        order: 0 counts increments from the last full step, 1 from the line through the last two, over steps.
        apart: modules inside which linears stay as they are.
    """

    def __init__(self, pipe: Pipe, lean: bool = True, order: int = 0, apart: Iterable[torch.nn.Module] = ()) -> None:
        others = {id(inner) for module in apart for inner in module.modules()}
        self.lean, self.order = lean, order
        self.linears = {name: one for name, one in find_linears(pipe).items() if id(one) not in others}
        self.beyond = torch.zeros(())
        """How far the present step lies beyond the last full one, in gaps between the last two."""
        self._full: dict[Hashable, list[int]] = {}
        self._beyond: dict[tuple[int, int, int], torch.Tensor] = {}
        super().__init__(pipe)
        self._hooks = {name: _AtLinear(linear, self) for name, linear in self.linears.items()}
        pipe.passes.on_begin.append(self.enter)

    def enter(self) -> None:
        """A pass begins: hand every linear what it keeps for this guidance branch, so that none need look it up."""
        if self.passes.kind != OFF:
            for name, hook in self._hooks.items():
                hook.kept, hook.place = self.memories.setdefault((name, self.pipe.clock.branch), _LinearMemory()), 0
            policy = self.pipe.policy
            if policy is not None and policy.by_layer:
                for name, hook in self._hooks.items():
                    hook.own = policy.of_layer(name)
                    hook.beyond = self._go_along((name, self.pipe.clock.branch), hook.own)
            else:
                self.beyond = self._go_along(self.pipe.clock.branch, self.passes.kind)

    def _go_along(self, key: Hashable, kind: str) -> Tensor:
        """How far the present step lies beyond the last full one of what `key` names, where a line is drawn."""
        if not self.order:
            return self.beyond
        index, full = self.pipe.clock.index, self._full.setdefault(key, [])
        if kind == FULL:
            full.append(index)
        if kind == FULL or len(full) < 2:
            return self.beyond
        last, before = full[-1], full[-2]
        if (index, last, before) not in self._beyond:  # filled on the device: a copy would be waited for
            beyond = (index - last) / (last - before)
            self._beyond[index, last, before] = torch.full((), beyond, device=self.pipe.device)
        return self._beyond[index, last, before]

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Correct by these factors from the next generation on; see `read_corrections`."""
        corrections = read_corrections(tensors)
        for name, hook in self._hooks.items():
            hook.correction = corrections.get(name)
        super().take(tensors)

    def forget(self) -> None:
        """Drop what is kept."""
        super().forget()
        self._full.clear()
        self._beyond.clear()
        for hook in self._hooks.values():
            hook.forget()


def find_linears(pipe: Pipe) -> dict[str, torch.nn.Module]:
    """Every linear of the blocks, however its weight is stored, by transformer, block and place."""
    return {
        f"{name}.{block.name}.{path}": module
        for name, blocks in pipe.blocks.items()
        for block in blocks
        for path, module in _linears(block.module, "")
    }


def _linears(module: torch.nn.Module, path: str) -> Iterator[tuple[str, torch.nn.Module]]:
    for name, child in module.named_children():
        place = f"{path}.{name}" if path else name
        # a LoRA beside its base is one linear
        if isinstance(child, torch.nn.Linear) or hasattr(child, "base_layer"):
            yield place, child
        else:
            yield from _linears(child, place)


def on_tokens(x: Tensor) -> bool:
    """Whether a linear reads tokens; one row per picture (modulation) is cheap and always computed."""
    return x.ndim >= 3 and x.shape[-2] > 1


@dataclass
class _LinearMemory:
    """One linear at the last full step of one branch: its output, and B C(x) or, in the plain form, C(x).

    `older` is what was kept at the full step before, where a line is drawn; `again` of further calls in one pass.
    """

    y: Tensor | None = None
    base: Tensor | None = None
    older: _LinearMemory | None = None
    again: dict[int, _LinearMemory] = field(default_factory=dict)

    def of_call(self, place: int) -> _LinearMemory:
        """What is kept of a further call in a pass, as where text and picture share an MLP."""
        return self.again.setdefault(place, _LinearMemory())

    def at(self, beyond: Tensor) -> _LinearMemory:
        """What the line through both says of the present step."""
        if self.older is None:
            return self
        # C(.) = z1 + (t - t1) / (t1 - t0) (z1 - z0)
        pairs = ((self.y, self.older.y), (self.base, self.older.base))
        y, base = (None if new is None or old is None else new + (new - old) * beyond for new, old in pairs)
        return _LinearMemory(y, base)

    def tensors(self) -> list[Tensor]:
        others = [*self.again.values(), *([] if self.older is None else [self.older])]
        return [one for one in (self.y, self.base) if one is not None] + [
            one for kept in others for one in kept.tensors()
        ]


def wrong_corrections(pipe: Pipe, tensors: Mapping[str, Tensor]) -> list[str]:
    """Why `read_corrections` cannot read these for a pipe's linears: what is missing, unknown or of a wrong shape."""
    linears = find_linears(pipe)
    wrong = [f"{name}: unknown" for name in tensors if not name.endswith((".up", ".down"))]
    wrong += [
        f"{name}: found {tuple(one.shape)} of {one.dtype}; wanted a matrix of floats"
        for name, one in tensors.items()
        if one.ndim != 2 or not one.is_floating_point()
    ]
    if wrong:
        return wrong
    downs = [name for name in tensors if name.endswith(".down")]
    members = [member for name in downs for member in name.removesuffix(".down").split("+")]
    wrong += [f"{member}.up: missing" for member in members if f"{member}.up" not in tensors]
    alone = [name for name in tensors if name.endswith(".up") and members.count(name.removesuffix(".up")) != 1]
    wrong += [f"{name}: the matrix that goes before it is missing, or there are two" for name in alone]
    wrong += [f"{member}: this pipeline has no such linear" for member in members if member not in linears]
    return wrong or [reason for name in downs for reason in _wrong_shapes(name, linears, tensors)]


def _wrong_shapes(down: str, linears: Mapping[str, torch.nn.Module], tensors: Mapping[str, Tensor]) -> Iterator[str]:
    members = down.removesuffix(".down").split("+")
    ranks, rows = [tensors[f"{member}.up"].shape[1] for member in members], len(tensors[down])
    if sum(ranks) != rows and set(ranks) != {rows}:
        yield f"{down}: found {rows} rows; wanted {sum(ranks)}"
    for member in members:
        wide, high = (getattr(linears[member], name, None) for name in ("in_features", "out_features"))
        if wide is not None and tensors[down].shape[1] != wide:
            yield f"{down}: found {tensors[down].shape[1]} columns; {member} reads {wide}"
        if high is not None and len(tensors[f"{member}.up"]) != high:
            yield f"{member}.up: found {len(tensors[f'{member}.up'])} rows; the linear writes {high}"


class _AtLinear(InnerHook):
    """One linear: runs and is kept, or is corrected.

    What it needs are its own attributes: a compiler that finds names here would compile every block by itself.
    """

    def __init__(self, module: torch.nn.Module, state: LowRankLinears) -> None:
        super().__init__(module)
        self.state, self.kept = state, _LinearMemory()
        self.correction: Correction | None = None
        self.own: str | None = None
        """How its layer runs in the present pass, where layers are told apart."""
        self.beyond = state.beyond
        self.place = 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        kind, x = self.state.passes.kind, args[0]
        if kind == OFF or not on_tokens(x):
            return self.under(*args, **kwargs)
        kept = self.kept if self.place == 0 else self.kept.of_call(self.place)
        self.place += 1
        if (self.own or kind) != FULL:
            return self._advance(x, kept)
        y = self.under(*args, **kwargs)
        self._keep(x, y, kept)
        return y

    def _keep(self, x_BTI: Tensor, y_BTO: Tensor, kept: _LinearMemory) -> None:
        """Remember a full step."""
        if self.state.order and kept.y is not None:
            kept.older = _LinearMemory(kept.y, kept.base)
        kept.y = y_BTO
        if self.correction is None:
            return
        if torch.compiler.is_compiling():
            kept.base = self.correction.source.base(x_BTI, self.state.lean)
            return
        with for_later_steps():
            kept.base = self.correction.source.base(x_BTI, self.state.lean)

    def _advance(self, x_BTI: Tensor, kept: _LinearMemory) -> Tensor:
        """The output on a calibrated step; without factors what is kept, as it is."""
        kept = kept.at(self.state.beyond if self.own is None else self.beyond)
        y, base = kept.y, kept.base
        assert y is not None
        if self.correction is None or base is None:
            return y
        return self.correction.correct(y, self.correction.source.change(x_BTI, base, self.state.lean))

    def forget(self) -> None:
        self.kept = _LinearMemory()
        if self.correction is not None:
            self.correction.source.forget()
