"""Trace: finds the trunks of a transformer that nobody described, by watching one forward.

A block is a module of a list that returns tensors of the shapes of some of its arguments: those are its streams. A
block that sees fewer tokens than the last one, or nothing of the picture, prepares what the trunk reads (a refiner),
and is left alone. Where a stream that enters a block is not what the block before it returned, a new trunk begins.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ditstack.errors import BadPipeline
from ditstack.pipeline.blocks import Block, parameters_of
from ditstack.pipeline.pipe import transformers_of

SMALL = {"num_inference_steps": 2, "output_type": "latent", "num_frames": 9}
SIDE = 16
"""Width and height of the traced picture, in latents."""
TEXT_WORDS = ("encoder", "context", "text", "txt", "cap")

Trunks = dict[str, dict[str, list[Block]]]


@dataclass
class Found:
    """The trunks of each transformer by site, and the lists that are no part of one."""

    trunks: Trunks
    left_out: list[str]

    def sentence(self) -> str:
        """What was found, for the reader of a report."""
        parts = [
            f"{site}: {len(blocks)} blocks of {', '.join(_lists(blocks))}"
            for sites in self.trunks.values()
            for site, blocks in sites.items()
        ]
        rest = f"; left alone: {', '.join(self.left_out)}" if self.left_out else ""
        return f"model auto found {'; '.join(parts)}{rest}"


def _lists(blocks: list[Block]) -> list[str]:
    return list(dict.fromkeys(block.name.rpartition(".")[0] for block in blocks))


@dataclass
class _Call:
    """One call of a module in a list."""

    name: str
    module: nn.Module
    given: dict[str, Tensor]
    returned: tuple[Any, ...]
    streams: dict[str, int]
    """By argument, the place of the stream in what is returned."""

    @property
    def stack(self) -> str:
        return self.name.rpartition(".")[0]

    def block(self) -> Block:
        (hidden, place), *others = self.streams.items()
        return Block(self.name, self.module, hidden, place, parameters_of(self.module), tuple(others))

    def tokens(self) -> int:
        """How many tokens it sees, of picture and text."""
        stream = self.given[next(iter(self.streams))]
        seen = [one for one in self.given.values() if one.is_floating_point() and one.shape[-1] == stream.shape[-1]]
        # of equal shape is what an earlier block handed over: a long skip, and no further tokens
        others = [one for one in seen if one.ndim > 2 and one.shape != stream.shape]
        return sum(one.numel() // one.shape[-1] // len(one) for one in [stream, *others])


def trace(pipeline: Any, arguments: Mapping[str, Any]) -> Found:
    """Run a pipeline up to the end of its first forward, on a small picture, and read the trunks from what ran.

    Raises:
        BadPipeline: it cannot be run so, or runs no list of blocks.
    """
    transformers, kind = transformers_of(pipeline), type(pipeline).__name__
    watch = _Watch(transformers)
    with _explained(kind), watch.listening(stop=True):
        pipeline(**_small_call(pipeline, arguments))
    ran = next((name for name in transformers if watch.calls[name]), None)
    if ran is None:
        raise BadPipeline(f"{kind} runs no list of blocks; ditstack finds nothing to attach to")
    with _explained(kind):
        first = _painters(watch, ran)
    trunks, left_out = {}, sorted({call.stack for call in watch.calls[ran]} - {call.stack for call in first})
    for name, transformer in transformers.items():
        seen = first if name == ran else [_moved(call, transformer) for call in first]
        trunks[name], left = _trunks(name, transformer, seen)
        left_out = sorted({*left_out, *left})
    return Found(trunks, left_out)


@contextmanager
def _explained(kind: str) -> Iterator[None]:
    """Whatever a pipeline raises when it is looked at becomes a sentence; having seen enough is no error."""
    try:
        yield
    except _SeenEnough:
        pass
    except BadPipeline:
        raise
    except Exception as error:
        raise BadPipeline(f"a trial call of a {kind} fails: {error}; give what it wants as model.arguments") from error


def _painters(watch: _Watch, name: str) -> list[_Call]:
    """The calls of blocks that read the picture: of those, the streams change when the picture does."""
    first, args, kwargs = watch.calls[name], *watch.arguments[name]
    watch.calls[name] = []
    other_args, other_kwargs = _repainted(args, kwargs)
    with torch.no_grad(), watch.listening(stop=False):
        watch.transformers[name](*other_args, **other_kwargs)
    second, watch.calls[name] = watch.calls[name], first
    if [call.name for call in first] != [call.name for call in second]:
        raise BadPipeline("the transformer runs other blocks when the picture changes; model auto cannot follow it")
    return [call for call, again in zip(first, second, strict=True) if not _equal(call.returned, again.returned)]


def _repainted(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a transformer with another picture: its first argument, a tensor or a list of them."""
    if args:
        return (_negative(args[0]), *args[1:]), kwargs
    name = "hidden_states" if "hidden_states" in kwargs else next(iter(kwargs))
    return args, {**kwargs, name: _negative(kwargs[name])}


def _negative(picture: Any) -> Any:
    return [-one for one in picture] if isinstance(picture, list) else -picture


def _equal(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return all(_same(a, b) if isinstance(b, Tensor) else True for a, b in zip(one, other, strict=True))


def small_call(pipeline: Any) -> dict[str, Any]:
    """Arguments with which a pipeline makes a small picture, as far as its class tells."""
    known = inspect.signature(type(pipeline).__call__).parameters
    side = SIDE * getattr(pipeline, "vae_scale_factor", getattr(pipeline, "vae_scale_factor_spatial", 8))
    wanted = {
        **SMALL,
        "prompt": "a picture",
        "class_labels": [0],
        "height": side,
        "width": side,
        "max_area": side * side,
    }
    wanted["generator"] = torch.Generator().manual_seed(0)
    return {name: value for name, value in wanted.items() if name in known}


def _small_call(pipeline: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """With what the user gives laid over it; embeddings take the place of the prompt."""
    small = small_call(pipeline)
    if any(name.startswith("prompt_embeds") for name in arguments):
        del small["prompt"]
    return small | dict(arguments)


class _SeenEnough(Exception):
    """Raised when the first forward has ended."""


class _Watch:
    """Hears every call of a module in a list of a transformer, and what the transformer itself was given."""

    def __init__(self, transformers: Mapping[str, nn.Module]) -> None:
        self.transformers = transformers
        self.calls: dict[str, list[_Call]] = {name: [] for name in transformers}
        self.arguments: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    @contextmanager
    def listening(self, stop: bool) -> Iterator[None]:
        """Inside, calls are recorded; with `stop` the end of the first forward raises _SeenEnough."""
        handles = []
        for name, transformer in self.transformers.items():
            handles.append(transformer.register_forward_pre_hook(self._beginner(name), with_kwargs=True))
            handles.append(transformer.register_forward_hook(self._ender(stop)))
            for path, module in transformer.named_modules():
                above = transformer.get_submodule(path.rpartition(".")[0])
                if path.count(".") == 1 and isinstance(above, nn.ModuleList):
                    handles.append(module.register_forward_hook(self._recorder(name, path), with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _beginner(self, name: str) -> Any:
        def begin(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.arguments[name] = tree_map(lambda one: one, (args, kwargs))  # some models empty the lists they get

        return begin

    def _ender(self, stop: bool) -> Any:
        def end(*_: Any) -> None:
            if stop:
                raise _SeenEnough

        return end

    def _recorder(self, name: str, path: str) -> Any:
        def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
            named = {**dict(zip(parameters_of(module), args, strict=False)), **kwargs}
            given = {key: value for key, value in named.items() if isinstance(value, Tensor)}
            returned = out if isinstance(out, tuple) else (out,)
            self.calls[name].append(_Call(path, module, given, returned, {}))

        return record


def _moved(call: _Call, transformer: nn.Module) -> _Call:
    """The same call in a transformer of the same build that has not run."""
    return _Call(call.name, transformer.get_submodule(call.name), call.given, call.returned, dict(call.streams))


def _trunks(name: str, transformer: nn.Module, calls: list[_Call]) -> tuple[dict[str, list[Block]], list[str]]:
    """The trunks of one transformer by site, and the lists left out."""
    kind = type(transformer).__name__
    for place, call in enumerate(calls):
        alike = [one for one in calls[:place] if one.stack == call.stack and type(one.module) is type(call.module)]
        call.streams = _streams(call, alike[-1] if alike else None, calls[place + 1 :])
    blocks = [call for call in calls if call.streams]
    if not blocks:
        raise BadPipeline(f"{kind} runs no list of blocks; ditstack finds nothing to attach to")
    if len({call.name for call in blocks}) < len(blocks):
        raise BadPipeline(f"{kind} runs a block twice in one forward; model auto cannot follow it")
    kept = [call for call in blocks if call.tokens() >= blocks[-1].tokens()]
    runs = [[kept[0]]]
    for before, call in pairwise(kept):
        if _continues(before, call):
            runs[-1].append(call)
        else:
            runs.append([call])
    sites = [name if len(runs) == 1 else f"{name}.{run[0].stack}" for run in runs]
    sites = [site if sites.count(site) == 1 else f"{name}.{run[0].name}" for site, run in zip(sites, runs, strict=True)]
    trunks = {site: [call.block() for call in run] for site, run in zip(sites, runs, strict=True)}
    stacks = {call.stack for call in kept}
    return trunks, sorted({call.stack for call in calls} - stacks)


def _streams(call: _Call, before: _Call | None, later: list[_Call]) -> dict[str, int]:
    """Which argument flows on as which returned value; the picture's stream comes first.

    Raises:
        BadPipeline: two arguments are alike, and nothing tells which of them flows on.
    """
    after = next((one for one in later if one.stack == call.stack), None)
    if after is None and before is not None and len(before.returned) == len(call.returned):
        return {name: place for name, place in before.streams.items() if isinstance(call.returned[place], Tensor)}
    pairs: dict[str, int] = {}
    for place, value in enumerate(call.returned):
        if not isinstance(value, Tensor) or value.ndim < 3:
            continue
        alike = [name for name, given in call.given.items() if given.shape == value.shape]
        sure = [name for name in alike if any(_same(one.given.get(name), value) for one in later)]
        alike = sure or alike
        if len(alike) > 1 and after is not None:  # what the next block is given unchanged only passes by
            alike = [name for name in alike if not _same(after.given.get(name), call.given[name])] or alike
        if len(alike) > 1:
            raise BadPipeline(f"model auto cannot tell which of {', '.join(alike)} flows through {call.name}")
        pairs.update(dict.fromkeys(alike, place))
    if any(place not in pairs.values() and not _passed_by(call, value) for place, value in enumerate(call.returned)):
        return {}  # it also makes something of its own, such as a hint for other blocks: it is no part of a trunk
    return dict(sorted(pairs.items(), key=lambda pair: any(word in pair[0] for word in TEXT_WORDS)))


def _passed_by(call: _Call, value: Any) -> bool:
    """Whether what a block returns is what it was given, or nothing of tokens."""
    return not isinstance(value, Tensor) or value.ndim < 3 or any(_same(one, value) for one in call.given.values())


def _same(one: Tensor | None, other: Tensor) -> bool:
    if one is None or one.shape != other.shape or one.dtype != other.dtype:
        return False
    return one is other or torch.equal(one, other)


def _continues(before: _Call, call: _Call) -> bool:
    """Whether every stream that enters a block is what the block before it returned."""
    if before.stack != call.stack and before.streams.keys() != call.streams.keys():
        return False
    return all(
        name in before.streams and _same(call.given[name], before.returned[before.streams[name]])
        for name in call.streams
    )
