"""Statistics: what is gathered of a pipe's linears while calibration prompts run, streamed: never whole activations."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from ditstack.caching.linears import on_tokens
from ditstack.calibration.moments import ROOM_GB, Moments
from ditstack.maths.predictors import lagrange
from ditstack.pipeline.macs import uncounted
from ditstack.pipeline.pipe import CALIBRATED, FULL, Pipe

See = Callable[[str, Tensor, Tensor], None]
"""Told of a linear's name, its input and its output, both (B, T, width)."""

Made = TypeVar("Made")

PLAIN = (Tensor, str, int, float, type(None), torch.dtype, torch.device)
"""What a call of a transformer may hold that is run again."""
FULL_METRIC = 4096
"""The widest output whose sensitivity is kept as a matrix; beyond, channel by channel."""


@contextmanager
def seeing(linears: Mapping[str, torch.nn.Module], see: See) -> Iterator[None]:
    """Inside, `see` is told of every call of a linear on tokens. What it computes is not counted as the model's."""

    def listen(name: str) -> Callable[..., None]:
        def hear(_module: torch.nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
            if on_tokens(args[0]):
                with uncounted():
                    see(name, args[0], out)

        return hear

    handles = [linear.register_forward_hook(listen(name)) for name, linear in linears.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class LinearSurvey:
    """Which linears read one and the same tensor, how wide they are, and how many rows each has seen.

    Attributes:
        inputs: for every linear on tokens, the first of those that read its input.
        shapes: its widths, out and in.
    """

    def __init__(self) -> None:
        self.inputs: dict[str, str] = {}
        self.rows: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, int]] = {}
        self._recent: deque[tuple[Tensor, str]] = deque(maxlen=4)

    def __call__(self, name: str, x_BTI: Tensor, y_BTO: Tensor) -> None:
        self.rows[name] = self.rows.get(name, 0) + x_BTI.shape[:-1].numel()
        if name in self.inputs:
            return
        first = next((one for seen, one in self._recent if seen is x_BTI), name)
        self.inputs[name] = first
        self.shapes[name] = (y_BTO.shape[-1], x_BTI.shape[-1])
        if first == name:
            self._recent.append((x_BTI, name))

    def finish(self) -> None:
        self._recent.clear()

    def groups(self) -> list[list[str]]:
        """The linears by what they read."""
        firsts = dict.fromkeys(self.inputs.values())
        return [[name for name, one in self.inputs.items() if one == first] for first in firsts]


class Since:
    """Tells of increments: on the schedule's calibrated steps those from its full ones, or from the step before.

    Args:
        see: told of the changes of input and output.
        order: 0 counts from the last full step, 1 from the line through the last two; None from the step before.
    """

    def __init__(self, pipe: Pipe, see: See, order: int | None) -> None:
        self.pipe, self.see, self.order = pipe, see, order
        self._known: dict[Any, list[tuple[int, Tensor, Tensor]]] = {}
        self._generation = -1
        self._calls: Counter[str] = Counter()
        self._pass: Any = None

    def __call__(self, name: str, x_BTI: Tensor, y_BTO: Tensor) -> None:
        clock = self.pipe.clock
        if not clock.running:  # beyond the scheduler's steps nothing is calibrated
            return
        if clock.generation != self._generation:
            self._known, self._generation = {}, clock.generation
        if (present := (clock.generation, clock.index, clock.branch)) != self._pass:
            self._calls, self._pass = Counter(), present
        self._calls[name] += 1  # text and picture may share a linear
        known = self._known.setdefault((name, clock.branch, self._calls[name]), [])
        kind = self._kind(name)
        if known and kind in (CALIBRATED, None):
            weights = lagrange([float(index) for index, _, _ in known], clock.index)
            pairs = list(zip(weights, known, strict=True))
            self.see(name, x_BTI - sum(w * x for w, (_, x, _) in pairs), y_BTO - sum(w * y for w, (_, _, y) in pairs))
        if not known or kind in (FULL, None):
            known.append((clock.index, x_BTI, y_BTO))
            del known[: -1 - (self.order or 0)]

    def _kind(self, name: str) -> str | None:
        """Of a linear at the present step, on the schedule; None where every step is told of and counted from."""
        if self.order is None:
            return None
        assert self.pipe.policy is not None
        return self.pipe.policy.scheduled(name)


class Channels:
    """The mean of |z| over tokens, per sample and channel, of inputs (`<linear>/x`) and outputs (`<linear>/y`).

    `rows` holds what was seen up to the last `settle`: joined at each call, they would be copied ever again.
    """

    def __init__(self) -> None:
        self.rows: dict[str, Tensor] = {}
        self._new: dict[str, list[Tensor]] = {}

    def __call__(self, name: str, x_BTI: Tensor, y_BTO: Tensor) -> None:
        for key, z in ((f"{name}/x", x_BTI), (f"{name}/y", y_BTO)):
            self._new.setdefault(key, []).append(z.float().abs().flatten(1, -2).mean(1))

    def settle(self) -> None:
        """Join what was seen to `rows`."""
        for key, new in self._new.items():
            before = [self.rows[key].to(new[0])] if key in self.rows else []
            self.rows[key] = torch.cat([*before, *new])
        self._new.clear()


class Grams:
    """Second moments. `wanted` says what to take of a call; None takes nothing.

    Args:
        moments: where they are added up, under the linear's name after `prefix`.
    """

    def __init__(
        self,
        wanted: Callable[[str, Tensor, Tensor], tuple[Tensor, Tensor] | None],
        moments: Moments,
        prefix: str = "",
    ) -> None:
        self.wanted, self.moments, self.prefix = wanted, moments, prefix

    def __call__(self, name: str, x_BTI: Tensor, y_BTO: Tensor) -> None:
        if (pair := self.wanted(name, x_BTI, y_BTO)) is None:
            return
        a, b = (one.flatten(0, -2).float() for one in pair)
        self.moments.add(self.prefix + name, a.mT @ b)


class Replay:
    """The inputs of some passes of the transformers, to run them again with gradients."""

    def __init__(self, pipe: Pipe, steps: int = 4) -> None:
        self.pipe, self.steps = pipe, steps
        self.calls: list[tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any]]] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Inside, passes of a few steps spread over each generation are noted."""

        def note(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not all(isinstance(one, PLAIN) for one in tree_leaves((args, kwargs))):
                return  # such as keys and values that are kept from an earlier step, and gone by then
            clock = self.pipe.clock
            # the clock settles the start only after this
            at, count = clock.step - max(clock.start, 0), clock.total - max(clock.start, 0)
            if clock.running and at in {int((k + 0.5) * count / self.steps) for k in range(self.steps)}:
                self.calls.append((module, *_copied((args, kwargs))))

        handles = [one.register_forward_pre_hook(note, with_kwargs=True) for one in self.pipe.transformers.values()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def sensitivity(
        self, linears: Mapping[str, torch.nn.Module], draws: int = 1, room_gb: float = ROOM_GB
    ) -> dict[str, Tensor]:
        """The mean over rows of J^T J, J the derivative of what a transformer returns by what a linear does.

        Returns:
            (O, O) for every linear, or its diagonal (O,) for wide ones; in fp64 on the host.
        """
        moments = Moments({}, room_gb)
        rows: Counter[str] = Counter()

        def see(name: str, _x: Tensor, y_BTO: Tensor) -> None:
            def add(gradient: Tensor) -> None:
                g = gradient.detach().flatten(0, -2).float()
                moments.add(name, g.square().sum(0) if g.shape[1] > FULL_METRIC else g.mT @ g)
                rows[name] += len(g)

            if y_BTO.requires_grad:
                y_BTO.register_hook(add)

        with seeing(linears, see), _frozen(self.pipe), torch.inference_mode(False), torch.enable_grad():
            generator = torch.Generator().manual_seed(0)
            for module, args, kwargs in self.calls:
                for _ in range(draws):
                    given, named = _copied((args, kwargs))
                    masks = {name: named.pop(name) for name in [*named] if name.endswith("_mask")}  # summed as integers
                    out = module(*_wanting_gradient(given), **_wanting_gradient(named), **masks)
                    out = out[0] if isinstance(out, tuple) else out.sample
                    outs = out if isinstance(out, (list, tuple)) else [out]  # one tensor for each item
                    # E[v v^T] = 1, so E[(J^T v)(J^T v)^T] = J^T J
                    v = [torch.randn(one.shape, generator=generator).to(one) for one in outs]
                    torch.autograd.backward(list(outs), v)
        moments.settle()
        return {name: total / rows[name] for name, total in moments.sums.items()}


def _copied(tree: Any) -> Any:
    with torch.inference_mode(False):
        return tree_map_only(Tensor, lambda one: one.clone(), tree)


def _wanting_gradient(tree: Any) -> Any:
    return tree_map_only(Tensor, lambda one: one.requires_grad_() if one.is_floating_point() else one, tree)


@contextmanager
def _frozen(pipe: Pipe) -> Iterator[None]:
    """Inside, no weight asks for a gradient, and activations are recomputed rather than held where a model can."""
    asked = [one for module in pipe.transformers.values() for one in module.parameters() if one.requires_grad]
    able: list[Any] = [
        one
        for one in pipe.transformers.values()
        if getattr(one, "_supports_gradient_checkpointing", False) and not one.is_gradient_checkpointing
    ]
    for one in asked:
        one.requires_grad_(False)
    for one in able:
        one.enable_gradient_checkpointing()
    try:
        yield
    finally:
        for one in able:
            one.disable_gradient_checkpointing()
        for one in asked:
            one.requires_grad_(True)
