"""sage: SageAttention's kernels, int8 Q and K with K smoothed (Zhang et al., arXiv 2410.02367; 2.x: arXiv 2411.10958).

Calls that a kernel would answer wrongly go to PyTorch's own, and the report says which.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ditstack.plugin import Attention, Capability

if TYPE_CHECKING:
    from torch import Tensor

    from ditstack.plugin import Call, Declined, Kernel, Pipe

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
        from ditstack.plugin import replace_attention

        replace_attention(pipe, "sage", _installed(), closed=True)

    def dense_kernels(self) -> dict[str, Kernel]:
        return {"sage": _installed()}


def _installed() -> Kernel:
    from importlib.metadata import version

    return attend_1 if version("sageattention").startswith("1.") else attend_2


def attend_1(q: Tensor, k: Tensor, v: Tensor, call: Call) -> Tensor | Declined:
    """Through sageattention 1.x."""
    import torch

    from ditstack.plugin import without_hidden

    k, v, reason = without_hidden(k, v, call)
    if (reason := reason or refusal_1(q, k, call.causal)) is not None:
        return _declined(reason, q, k, v, call)
    q, k, v = (one if one.stride(-1) == 1 else one.contiguous() for one in (q, k, v))
    # its own smoothing would change the caller's k
    k = k - k.mean(-2, keepdim=True)
    with torch.cuda.device_of(q):
        return _sage()(q, k, v, is_causal=call.causal, sm_scale=call.scale, smooth_k=False)


def attend_2(q: Tensor, k: Tensor, v: Tensor, call: Call) -> Tensor | Declined:
    """Through sageattention 2.x, which pads and smooths by itself."""
    from ditstack.plugin import without_hidden

    k, v, reason = without_hidden(k, v, call)
    if (reason := reason or refusal_2(q)) is not None:
        return _declined(reason, q, k, v, call)
    return _sage()(q, k, v, tensor_layout="HND", is_causal=call.causal, sm_scale=call.scale)


def _declined(reason: str, q: Tensor, k: Tensor, v: Tensor, call: Call) -> Declined:
    """Where hidden keys are left out already, PyTorch's own kernel needs no mask and takes its fast way."""
    from torch.nn.functional import scaled_dot_product_attention

    from ditstack.plugin import Declined

    if call.mask is None or call.keys is None or k.shape[-2] == call.mask.shape[-1]:
        return Declined(reason)
    return Declined(reason, scaled_dot_product_attention(q, k, v, scale=call.scale))


def refusal_1(q: Tensor, k: Tensor, causal: bool) -> str | None:
    """Why 1.x must not take a call."""
    if q.shape[-1] not in WIDTHS:
        return f"a head is {q.shape[-1]} wide; the kernel takes {', '.join(map(str, WIDTHS))}"
    if causal and q.shape[-2] != k.shape[-2]:
        return "the kernel's causal form wants as many keys as queries"
    if not causal and k.shape[-2] % KEYS:
        return f"{k.shape[-2]} keys are not a multiple of {KEYS}; the kernel would count padding as keys"
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
