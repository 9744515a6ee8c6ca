"""Attention: lets a kernel take over scaled dot-product attention inside the blocks of one pipe, whoever calls it.

Every diffusers processor ends in `F.scaled_dot_product_attention`, by way of diffusers' dispatcher or by itself. While
an attention module of the pipe runs, that one function is answered by the kernel; other pipelines never see it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.hooks.hooks import ModelHook
from diffusers.models.attention_dispatch import AttentionBackendName
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from ditstack.attention.layout import AroundPass, Layout
from ditstack.attention.masks import Masks
from ditstack.attention.opaque import attend, number
from ditstack.pipeline.hooks import InnerHook, attach, run_original, to_undo
from ditstack.pipeline.macs import Stated, attention_macs, counts_as
from ditstack.pipeline.pipe import Pipe

HOOK = "ditstack_attention"

# B batch, H heads, T tokens, D width of a head


@dataclass
class Call:
    """One call of attention, beside q, k and v.

    Attributes:
        site: the attention module; its `name` tells which of which transformer.
        mask: broadcasts to (B, H, Tq, Tk); True or 0 lets a key be seen.
        text: where the text tokens lie among the tokens of a joint sequence, as far as that is known.
        across: whether the keys are other tokens than the queries, such as text.
        frames: how many frames of latents the other tokens are, for video.
        share: what part of all products the kernel made; the kernel says so.
    """

    site: Site
    mask: Tensor | None
    causal: bool
    scale: float
    text: tuple[int, int] | None = None
    across: bool = False
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
    """A kernel's answer to a call that it cannot take; PyTorch's own kernel takes it, and the report says why.

    Attributes:
        instead: what PyTorch's own kernel made of it already, such as without the keys that its mask hides.
    """

    reason: str
    instead: Tensor | None = None


Kernel = Callable[[Tensor, Tensor, Tensor, Call], "Tensor | Declined"]


class Replacement:
    """A kernel at work on a pipe.

    Attributes:
        ran: of the present or last generation, how many calls the kernel took ("kernel") and declined, by reason.
        asked, made: multiply-accumulates of all calls so far, dense and as they were made.
        awake: whether the present call of the transformer is one of this pipe's own pipeline.
    """

    def __init__(self, pipe: Pipe, name: str, kernel: Kernel, closed: bool) -> None:
        self.pipe, self.name, self.kernel, self.closed = pipe, name, kernel, closed
        self.ran: Counter[str] = Counter()
        self.asked: float | Tensor = 0.0
        self.made: float | Tensor = 0.0
        self.awake = False
        self.layout, self.masks = Layout(), Masks(pipe)

    def answer(self, q: Tensor, k: Tensor, v: Tensor, call: Call) -> Tensor | Declined:
        if torch.compiler.is_compiling():
            return self.kernel(q, k, v, call)
        dense = attention_macs(q, k, v)
        with counts_as(lambda: Stated(dense, call.share).macs):
            out = self.kernel(q, k, v, call)
            self.asked, self.made = (
                self.asked + dense,
                self.made + dense * (1 if isinstance(out, Declined) else call.share),
            )
            if isinstance(out, Declined):
                call.share = 0.0 if out.instead is None else 1.0
        if self.closed:  # seen at every call, compiled or not
            self.pipe.passes.state(Stated(dense, call.share))
        self.ran[out.reason if isinstance(out, Declined) else "kernel"] += 1
        return out

    @property
    def thins(self) -> bool:
        """Whether the kernel is there to make fewer products, rather than faster ones."""
        return getattr(self.kernel, "thins", False)

    def tell(self, reason: str) -> None:
        """Let the report say that calls were declined."""
        note = f"attention {self.name}: some calls went to PyTorch's own kernel, because {reason}"
        if note not in self.pipe.notes:
            self.pipe.notes.append(note)


def replace_attention(pipe: Pipe, name: str, kernel: Kernel, closed: bool = False) -> Replacement:
    """Let `kernel` answer every call of attention in the blocks of `pipe`, as `pipe.attention` tells.

    Args:
        name: the method's word, for the report.
        kernel: (q, k, v, call) -> out or Declined, all in (B, H, T, D).
        closed: whether a compiler cannot look into it.
    """
    pipe.attention = replacement = Replacement(pipe, name, kernel, closed)
    for stage, transformer in pipe.transformers.items():
        attach(transformer, AroundPass(pipe, replacement), HOOK)
        for block in pipe.blocks[stage]:
            for site, module in _attention_modules(block.name, block.module):
                _surround(module, Site(replacement, f"{stage}.{site}"))
    return replacement


def _attention_modules(name: str, block: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """The modules of a block that carry a processor, or the block itself where none does."""
    found = [(f"{name}.{inner}", one) for inner, one in block.named_modules() if callable(getattr(one, "processor", 0))]
    yield from found or [(name, block)]


def _surround(module: Any, site: Site) -> None:
    """Let what the module runs be answered at `site`."""
    if not hasattr(module, "processor"):
        attach(module, _Surrounded(site), HOOK)
        return
    if hasattr(module.processor, "_attention_backend"):
        choose_backend(module.processor, AttentionBackendName.NATIVE)
    _AtAttention(module, site)


def choose_backend(processor: Any, backend: AttentionBackendName) -> None:
    """Set diffusers' backend for one processor; its own setter would change other pipelines too."""
    before = processor._attention_backend
    processor._attention_backend = backend

    def undo() -> None:
        processor._attention_backend = before

    to_undo(undo)


class _AtAttention(InnerHook):
    """An attention module that runs inside its site, whatever processor it carries."""

    def __init__(self, module: torch.nn.Module, site: Site) -> None:
        super().__init__(module)
        self.site = site

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if not self.site.replacement.awake:
            return self.under(*args, **kwargs)
        given = kwargs.get("encoder_hidden_states", args[1] if len(args) > 1 else None)
        self.site.given = given.shape[1] if isinstance(given, Tensor) and given.dim() == 3 else 0
        with self.site:
            return self.under(*args, **kwargs)


class _Surrounded(ModelHook):
    """The same for a module that carries no processor."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        with self.site if self.site.replacement.awake else nullcontext():
            return run_original(self, args, kwargs)


class Site(TorchFunctionMode):
    """One attention module; inside, scaled dot-product attention is answered by the kernel.

    `given` is how many further tokens its present call was given: a joint attention sees them beside its own, and one
    that looks across sees nothing else.
    """

    def __init__(self, replacement: Replacement, name: str) -> None:
        super().__init__()
        self.replacement, self.name = replacement, name
        self.given = 0
        self.number = number(self)

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
        return func(*args, **(kwargs or {})) if out.instead is None else out.instead

    def _answer(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
        is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    ) -> Tensor | Declined:  # fmt: skip
        if query.dim() != 4 or dropout_p:
            return Declined("they use dropout, or tensors that are not 4-D")
        if enable_gqa and key.shape[1] != query.shape[1]:
            times = query.shape[1] // key.shape[1]
            key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
        scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        if self.replacement.closed and torch.compiler.is_compiling():
            return attend(query, key, value, attn_mask, self.number, is_causal, scale, self.given)
        call = self._call(query, key, attn_mask, is_causal, scale)
        return self.replacement.answer(query, key, value, call)

    def _call(self, q: Tensor, k: Tensor, mask: Tensor | None, causal: bool, scale: float) -> Call:
        layout = self.replacement.layout
        across = k.shape[2] != q.shape[2] or k.shape[2] == self.given
        return Call(self, mask, causal, scale, None if across else layout.text(q.shape[2]), across, layout.frames)

    def ask(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float, given: int
    ) -> Tensor:
        """The answer to a compiled block's call."""
        self.given = given
        out = self.replacement.answer(q, k, v, self._call(q, k, mask, causal, scale))
        if not isinstance(out, Declined):
            return out
        self.replacement.tell(out.reason)
        if out.instead is not None:
            return out.instead
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale)
