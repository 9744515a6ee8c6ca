"""Rivals: dense attention kernels that can stand for one another, and which is fastest for given shapes here."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from ditstack.attention.dispatch import Call, Declined, Kernel
from ditstack.attention.masks import without_hidden
from ditstack.recipe.adapter import find, methods
from ditstack.recipe.plan import missing_packages

NATIVE = "native"
WARM_UPS, REPEATS = 2, 5
REFUSALS = (RuntimeError, NotImplementedError, ImportError, AssertionError, ValueError, TypeError)
"""How a kernel that cannot take a call ends."""

# B batch, H heads, T tokens, D width of a head


@dataclass(frozen=True)
class Trial:
    """One kernel at given shapes: its seconds and its distance to PyTorch's own, relative; or why it cannot stand."""

    name: str
    seconds: float = float("inf")
    error: float = 0.0
    why_not: str = ""

    def __str__(self) -> str:
        if self.why_not:
            return f"{self.name} not, because {self.why_not}"
        return f"{self.name} {1e3 * self.seconds:.3f} ms" + (f", {self.error:.2g} away" if self.error else "")


class Fastest:
    """A kernel that measures its rivals when shapes are first met, on the very tensors, and goes on with the fastest.

    Args:
        rivals: kernels without masks, by name.
        tolerance: how far, relatively, what a rival makes may lie from what PyTorch's own kernel makes.
        tell: told of every choice, in a sentence.

    Attributes:
        chosen: by shapes, the name of the kernel.
    """

    def __init__(self, rivals: Mapping[str, Kernel], tolerance: float, tell: Callable[[str], None]) -> None:
        self.rivals, self.tolerance, self.tell = {NATIVE: native, **rivals}, tolerance, tell
        self.chosen: dict[Any, str] = {}

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, call: Call) -> Tensor | Declined:
        k, v, reason = without_hidden(k, v, call)
        if reason is not None:
            return Declined(reason)
        bare = replace(call, mask=None)
        at = (tuple(q.shape), tuple(k.shape), q.dtype, q.device, call.causal)
        if at not in self.chosen:
            self.chosen[at] = self._choose(q, k, v, bare)
        return self.rivals[self.chosen[at]](q, k, v, bare)

    def _choose(self, q: Tensor, k: Tensor, v: Tensor, call: Call) -> str:
        trials = [self._tried(name, q, k, v, call) for name in self.rivals]
        best = min(trials, key=lambda one: one.seconds)
        others = "; ".join(str(one) for one in trials if one is not best)
        shapes = f"{q.shape[1]} heads of {q.shape[3]}, {q.shape[2]} by {k.shape[2]} tokens, {q.shape[0]} items"
        ran = kernel_name(lambda: native(q, k, v, call)) if q.is_cuda else ""
        named = f"; native runs {ran}" if ran else ""
        self.tell(f"attention auto takes {best} for {shapes}" + (f"; beside it {others}" if others else "") + named)
        return best.name

    def _tried(self, name: str, q: Tensor, k: Tensor, v: Tensor, call: Call) -> Trial:
        kernel = self.rivals[name]
        try:
            out = kernel(q, k, v, call)
            if isinstance(out, Declined):
                return Trial(name, why_not=out.reason)
            error = 0.0 if name == NATIVE else _distance(out, native(q, k, v, call))
            if not error <= self.tolerance:
                return Trial(name, why_not=f"what it makes lies {error:.2g} from PyTorch's own")
            return Trial(name, seconds_of(lambda: kernel(q, k, v, call), q.is_cuda), error)
        except REFUSALS as refusal:
            return Trial(name, why_not=(str(refusal).strip().splitlines() or [type(refusal).__name__])[0][:120])


def rivals(names: Iterable[str], device: str) -> dict[str, Kernel]:
    """Those of the named kernels that this machine has: PyTorch's, FlashAttention 3, and what methods offer."""
    known = {**_torchs(device), **_offered(device)}
    return {name: known[name] for name in names if name in known}


def seconds_of(run: Callable[[], Any], on_gpu: bool) -> float:
    """The median seconds of a call, once it is warm."""
    for _ in range(WARM_UPS):
        run()
    return median(_timed(run, on_gpu) for _ in range(REPEATS))


def kernel_name(run: Callable[[], Any]) -> str:
    """The GPU's kernel that takes the most time of a call."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        run()
        torch.cuda.synchronize()
    found = sorted(seen.key_averages(), key=lambda one: one.device_time_total, reverse=True)
    return found[0].key[:80] if found else ""


def native(q: Tensor, k: Tensor, v: Tensor, call: Call) -> Tensor:
    """As PyTorch chooses by itself."""
    return scaled_dot_product_attention(q, k, v, is_causal=call.causal, scale=call.scale)


def _timed(run: Callable[[], Any], on_gpu: bool) -> float:
    if not on_gpu:
        started = time.perf_counter()
        run()
        return time.perf_counter() - started
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()  # pyright: ignore[reportCallIssue]
    run()
    end.record()  # pyright: ignore[reportCallIssue]
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a.float() - b.float()).norm() / b.float().norm().clamp_min(1e-30))


def _torchs(device: str) -> dict[str, Kernel]:
    if device == "cpu" or not torch.cuda.is_available():
        return {}
    found: dict[str, Kernel] = {
        "cudnn": _by(SDPBackend.CUDNN_ATTENTION),
        "flash": _by(SDPBackend.FLASH_ATTENTION),
        "flex": _flex,
    }
    return {**found, "fa3": _fa3} if importlib.util.find_spec("flash_attn_interface") else found


def _by(backend: SDPBackend) -> Kernel:
    def attend(q: Tensor, k: Tensor, v: Tensor, call: Call) -> Tensor:
        with sdpa_kernel(backend):
            return native(q, k, v, call)

    return attend


def _fa3(q: Tensor, k: Tensor, v: Tensor, call: Call) -> Tensor:
    from flash_attn_interface import flash_attn_func  # pyright: ignore[reportMissingImports]

    q_BTHD, k_BTHD, v_BTHD = (one.transpose(1, 2) for one in (q, k, v))
    out = flash_attn_func(q_BTHD, k_BTHD, v_BTHD, softmax_scale=call.scale, causal=call.causal)
    return (out[0] if isinstance(out, tuple) else out).transpose(1, 2)


@cache
def _compiled_flex() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def _flex(q: Tensor, k: Tensor, v: Tensor, call: Call) -> Tensor | Declined:
    return Declined("they are causal") if call.causal else _compiled_flex()(q, k, v, scale=call.scale)


def _offered(device: str) -> dict[str, Kernel]:
    """What the methods of the attention stage offer whose packages are installed and whose needs this device meets."""
    found: dict[str, Kernel] = {}
    for word in methods("attention"):
        adapter = find("attention", word)()
        lacking = [one for one in adapter.needs if one.probe is not None and not one.holds(device)]
        if not missing_packages(adapter) and not lacking:
            found |= getattr(adapter, "dense_kernels", dict)()
    return found
