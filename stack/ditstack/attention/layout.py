"""Layout: where text and frames lie among the tokens of a pass."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from diffusers.hooks.hooks import ModelHook
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ditstack.pipeline.calls import running
from ditstack.pipeline.hooks import run_original
from ditstack.pipeline.pipe import Pipe


class Layout:
    """Where text and frames lie among the tokens of the present pass; found by watching one pass per text length."""

    def __init__(self) -> None:
        self.frames = 1
        self._tokens = 0
        self._watched: set[int] = set()
        self._places: dict[tuple[int, int], tuple[int, int]] = {}

    def text(self, total: int) -> tuple[int, int] | None:
        """The range of the text tokens in a sequence of `total` tokens."""
        return self._places.get((self._tokens, total))

    def enter(self, frames: int, text: Any) -> AbstractContextManager[Any]:
        """A transformer is about to run; inside the context, what it concatenates is watched if that is needed."""
        self.frames = frames
        self._tokens = text.shape[1] if isinstance(text, Tensor) and text.dim() == 3 else 0
        if not self._tokens or self._tokens in self._watched:
            return nullcontext()
        self._watched.add(self._tokens)
        return _Watching(self)

    def joined(self, lengths: list[int]) -> None:
        """Sequences of these lengths were joined. Where text cannot be told from the rest, all of it counts as text."""
        if self._tokens in lengths:
            start = sum(lengths[: lengths.index(self._tokens)])
            sure = lengths.count(self._tokens) == 1
            place = (start, start + self._tokens) if sure else (0, sum(lengths))
            self._places.setdefault((self._tokens, sum(lengths)), place)


def _frames(transformer: Any, hidden: Any, said: Any) -> int:
    """How many frames the latents of a call have: as said, or as in (B, C, F, H, W) or (B, F, C, H, W), or 1."""
    if not isinstance(hidden, Tensor) or hidden.dim() != 5:
        return said if isinstance(said, int) else 1
    channels_first = hidden.shape[1] == transformer.config.in_channels
    return hidden.shape[2 if channels_first else 1]


class Wakes(Protocol):
    """A kernel that answers attention only while it is awake."""

    awake: bool
    layout: Layout


class AroundPass(ModelHook):
    """Tells the layout of every call of a transformer, and wakes the kernel for those of the pipe's own pipeline."""

    def __init__(self, pipe: Pipe, kernel: Wakes) -> None:
        super().__init__()
        self.pipe, self.kernel, self.layout = pipe, kernel, kernel.layout

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        if running() is not self.pipe.clock:
            return run_original(self, args, kwargs)
        self.kernel.awake = True
        try:
            return self._watched(module, args, kwargs)
        finally:
            self.kernel.awake = False

    def _watched(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hidden = args[0] if args else kwargs.get("hidden_states")
        frames = _frames(module, hidden, kwargs.get("num_frames"))
        watching = self.layout.enter(frames, kwargs.get("encoder_hidden_states"))
        with watching, self.pipe.uncompiled() if isinstance(watching, _Watching) else nullcontext():
            return run_original(self, args, kwargs)


class _Watching(TorchFunctionMode):
    """Sees which sequences are joined along their tokens."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in (torch.cat, torch.concat):
            self._see(out, *args, **(kwargs or {}))
        return out

    def _see(self, out: Tensor, tensors: Any, dim: int = 0, **_: Any) -> None:
        place = dim % out.dim()
        if 0 < place < out.dim() - 1:
            self.layout.joined([one.shape[place] for one in tensors])
