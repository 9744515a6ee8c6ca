"""sage: SageAttention's kernels, int8 Q and K with K smoothed (Zhang et al., arXiv 2410.02367; 2.x: arXiv 2411.10958).

Calls that a kernel would answer wrongly go to PyTorch's own, and the report says which.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ditstack.plugin import Attention, Capability

if TYPE_CHECKING:
    from torch import Tensor

    from ditstack.plugin import Call, Declined, Pipe

WIDTHS = (64, 96, 128)
"""Widths of a head that 1.x takes; 2.x takes every one up to the last."""
KEYS = 64
"""Keys in a block of 1.x, whose kernel counts the padding of the last block in the softmax."""


class Sage(Attention):
    """Takes sageattention 2.x where it is installed, which is faster on newer GPUs, else 1.x."""

    packages: ClassVar[tuple[str, ...]] = ("sageattention", "triton")
    extra: ClassVar[str] = "sage"

    @property
    def needs(self) -> frozenset[Capability]:
        return super().needs | {Capability.CUDA, Capability.SM80}

    def apply(self, pipe: Pipe) -> None:
        from importlib.metadata import version

        from ditstack.plugin import replace_attention

        first = version("sageattention").startswith("1.")
        replace_attention(pipe, "sage", attend_1 if first else attend_2, closed=True)


def attend_1(q: Tensor, k: Tensor, v: Tensor, call: Call) -> Tensor | Declined:
    """Through sageattention 1.x."""
    import torch

    from ditstack.plugin import Declined

    k, v, reason = without_hidden(k, v, call)
    if (reason := reason or refusal_1(q, k, call.causal)) is not None:
        return Declined(reason)
    q, k, v = (one if one.stride(-1) == 1 else one.contiguous() for one in (q, k, v))
    # its own smoothing would change the caller's k
    k = k - k.mean(-2, keepdim=True)
    with torch.cuda.device_of(q):
        return _sage()(q, k, v, is_causal=call.causal, sm_scale=call.scale, smooth_k=False)


def attend_2(q: Tensor, k: Tensor, v: Tensor, call: Call) -> Tensor | Declined:
    """Through sageattention 2.x, which pads and smooths by itself."""
    from ditstack.plugin import Declined

    k, v, reason = without_hidden(k, v, call)
    if (reason := reason or refusal_2(q)) is not None:
        return Declined(reason)
    return _sage()(q, k, v, tensor_layout="HND", is_causal=call.causal, sm_scale=call.scale)


def without_hidden(k: Tensor, v: Tensor, call: Call) -> tuple[Tensor, Tensor, str | None]:
    """The keys and values that the mask lets through, or why it cannot be said so: the kernels know no masks."""
    if call.mask is None:
        return k, v, None
    if call.keys is None or call.causal:
        return k, v, "they carry a mask between single tokens"
    seen = call.keys[0, 0]
    if (call.keys != seen).any():
        return k, v, "their mask hides other keys from each item"
    return k[..., seen, :], v[..., seen, :], None


def refusal_1(q: Tensor, k: Tensor, causal: bool) -> str | None:
    """Why 1.x must not take a call."""
    if q.shape[-1] not in WIDTHS:
        return f"a head is {q.shape[-1]} wide; the kernel takes {', '.join(map(str, WIDTHS))}"
    if causal and q.shape[-2] != k.shape[-2]:
        return "the kernel's causal form wants as many keys as queries"
    if not causal and k.shape[-2] % KEYS:
        return f"{k.shape[-2]} keys are no multiple of {KEYS}; the kernel would count padding as keys"
    return None


def refusal_2(q: Tensor) -> str | None:
    """Why 2.x must not take a call."""
    if q.shape[-1] > WIDTHS[-1]:
        return f"a head is {q.shape[-1]} wide; the kernel takes up to {WIDTHS[-1]}"
    if q.element_size() != 2:
        return "the kernel takes fp16 and bf16 only"
    return None


def _sage() -> Any:
    from sageattention import sageattn  # pyright: ignore[reportMissingImports]

    return sageattn
