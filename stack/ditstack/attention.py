"""Attention: lets a kernel take over scaled dot-product attention inside the blocks of one pipe, whoever calls it.

Every diffusers processor ends in `F.scaled_dot_product_attention`, by way of diffusers' dispatcher or by itself. While
an attention module of the pipe runs, that one function is answered by the kernel; other pipelines never see it.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.hooks.hooks import HookRegistry, ModelHook
from diffusers.models.attention_dispatch import AttentionBackendName
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from ditstack.hooks import run_original
from ditstack.macs import attention_macs, counts_as
from ditstack.pipe import Pipe

HOOK = "ditstack_attention"

# B batch, H heads, T tokens, D width of a head


@dataclass
class Call:
    """One call of attention, beside q, k and v.

    Attributes:
        site: the attention module; its `name` tells which of which transformer.
        mask: broadcasts to (B, H, Tq, Tk); True or 0 lets a key be seen.
        text: where the text tokens lie among the tokens of a joint sequence, as far as that is known.
        frames: how many frames of latents the other tokens are, for video.
        share: what part of all products the kernel made; the kernel says so.
    """

    site: Site
    mask: Tensor | None
    causal: bool
    scale: float
    text: tuple[int, int] | None = None
    frames: int = 1
    share: float | Tensor = 1.0

    @property
    def keys(self) -> Tensor | None:
        """Which keys exist, (B or 1, 1, T), where the mask hides the same keys from every query; else None."""
        mask = self.mask
        if mask is None or mask.dtype != torch.bool or mask.dim() != 4 or mask.shape[1:3] != (1, 1):
            return None
        return mask[:, 0]


@dataclass(frozen=True)
class Declined:
    """A kernel's answer to a call that it cannot take; PyTorch's own kernel takes it, and the report says why."""

    reason: str


Kernel = Callable[[Tensor, Tensor, Tensor, Call], "Tensor | Declined"]


class Replacement:
    """A kernel at work on a pipe.

    Attributes:
        ran: of the present or last generation, how many calls the kernel took ("kernel") and declined, by reason.
    """

    def __init__(self, pipe: Pipe, name: str, kernel: Kernel) -> None:
        self.pipe, self.name, self.kernel = pipe, name, kernel
        self.ran: Counter[str] = Counter()
        self.layout = Layout()

    def answer(self, q: Tensor, k: Tensor, v: Tensor, call: Call) -> Tensor | Declined:
        if torch.compiler.is_compiling():
            return self.kernel(q, k, v, call)
        with counts_as(lambda: int(attention_macs(q, k, v) * float(call.share))):
            out = self.kernel(q, k, v, call)
            if isinstance(out, Declined):
                call.share = 0.0
        self.ran[out.reason if isinstance(out, Declined) else "kernel"] += 1
        return out

    def tell(self, reason: str) -> None:
        """Let the report say that calls were declined."""
        note = f"attention {self.name}: some calls went to PyTorch's own kernel, because {reason}"
        if note not in self.pipe.notes:
            self.pipe.notes.append(note)


def replace_attention(pipe: Pipe, name: str, kernel: Kernel) -> Replacement:
    """Let `kernel` answer every call of attention in the blocks of `pipe`, as `pipe.attention` tells.

    Args:
        name: the method's word, for the report.
        kernel: (q, k, v, call) -> out or Declined, all in (B, H, T, D).
    """
    pipe.attention = replacement = Replacement(pipe, name, kernel)
    for stage, transformer in pipe.transformers.items():
        _hook(transformer, _AroundPass(replacement.layout))
        for block in pipe.blocks[stage]:
            for site, module in _attention_modules(block.name, block.module):
                _surround(module, Site(replacement, f"{stage}.{site}"))
    return replacement


def _hook(module: torch.nn.Module, hook: ModelHook) -> None:
    HookRegistry.check_if_exists_or_initialize(module).register_hook(hook, HOOK)


def _attention_modules(name: str, block: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """The modules of a block that carry a processor, or the block itself where none does."""
    found = [(f"{name}.{inner}", one) for inner, one in block.named_modules() if callable(getattr(one, "processor", 0))]
    yield from found or [(name, block)]


def _surround(module: Any, site: Site) -> None:
    """Let what the module runs be answered at `site`."""
    if not hasattr(module, "processor"):
        _hook(module, _Surrounded(site))
        return
    if hasattr(module.processor, "_attention_backend"):
        # diffusers' own setter would change other pipelines too
        module.processor._attention_backend = AttentionBackendName.NATIVE
    module.processor.site = site
    module.processor.__class__ = _surrounded(type(module.processor))


@functools.cache
def _surrounded(kind: type) -> type:
    """A processor class whose calls run inside their object's site; not a hook, so that compiled blocks share code."""

    @functools.wraps(kind.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self.site:
            return kind.__call__(self, *args, **kwargs)

    return type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})


class _Surrounded(ModelHook):
    """The same for a module that carries no processor."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        with self.site:
            return run_original(self, args, kwargs)


class Site(TorchFunctionMode):
    """One attention module; inside, scaled dot-product attention is answered by the kernel."""

    def __init__(self, replacement: Replacement, name: str) -> None:
        super().__init__()
        self.replacement, self.name = replacement, name

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func is Tensor.unflatten:
            func = torch.unflatten  # the same, and the compiler can follow it
        if func is not scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return func(*args, **(kwargs or {}))  # calibration wants a gradient, and kernels have none
        out = self._answer(*args, **(kwargs or {}))
        if not isinstance(out, Declined):
            return out
        self.replacement.tell(out.reason)
        return func(*args, **(kwargs or {}))

    def _answer(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
        is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    ) -> Tensor | Declined:  # fmt: skip
        if query.dim() != 4 or dropout_p:
            return Declined("they drop out at random or are not of four dimensions")
        if enable_gqa and key.shape[1] != query.shape[1]:
            times = query.shape[1] // key.shape[1]
            key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
        layout = self.replacement.layout
        text = layout.text(query.shape[2]) if key.shape[2] == query.shape[2] else None
        scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        call = Call(self, attn_mask, is_causal, scale, text, layout.frames)
        return self.replacement.answer(query, key, value, call)


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


class _AroundPass(ModelHook):
    """Tells the layout of every call of a transformer."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs.get("hidden_states")
        frames = _frames(module, hidden, kwargs.get("num_frames"))
        with self.layout.enter(frames, kwargs.get("encoder_hidden_states")):
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
