"""int8qk: SageAttention's arithmetic in plain PyTorch, on any machine (Zhang et al., arXiv 2410.02367).

S = s_q s_k Q8 K8^T,  Q8 = round(Q / s_q),  K8 = round((K - mean K) / s_k);  O = softmax(S) V
One scale for 128 queries and one for 64 keys; softmax in fp32; the probabilities and V in fp16, summed in fp32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ditstack.plugin import Attention

if TYPE_CHECKING:
    from torch import Tensor

    from ditstack.plugin import Call, Pipe

QUERIES, KEYS = 128, 64
"""Tokens that share a scale."""
ROWS = 1024
"""Queries whose scores are held at once."""

# B batch, H heads, T tokens, D width of a head


class Int8QK(Attention):
    """An emulation: it rounds as the kernel does and is slower than plain attention."""

    rounds_activations: ClassVar[bool] = True

    def apply(self, pipe: Pipe) -> None:
        from ditstack.plugin import replace_attention

        replace_attention(pipe, "int8qk", attend)
        pipe.notes.append("attention int8qk is an emulation of SageAttention's rounding; it saves no time")


def attend(q: Tensor, k: Tensor, v: Tensor, call: Call) -> Tensor:
    """Attention with Q and K rounded to 8 bits."""
    import torch

    q8, s_q = rounded(q.float() * (call.scale * 1.44269504), QUERIES)
    k8, s_k = rounded((k - k.mean(-2, keepdim=True)).float(), KEYS)
    keys_BHDT, v_BHTD = (k8 * s_k).mT, v.half().float()
    queries = q8 * s_q
    out = torch.empty(*q.shape[:-1], v.shape[-1], dtype=q.dtype, device=q.device)
    for start in range(0, q.shape[-2], ROWS):
        rows = slice(start, start + ROWS)
        out[..., rows, :] = _probable(_masked(queries[..., rows, :] @ keys_BHDT, start, call), v_BHTD)
    return out


def rounded(x_BHTD: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """(whole numbers in -127 .. 127, as floats; the scale of each token, shared by `block` tokens)."""
    import torch

    tokens = x_BHTD.shape[-2]
    largest = x_BHTD.abs().amax(-1)
    blocks = torch.nn.functional.pad(largest, (0, -tokens % block)).unflatten(-1, (-1, block)).amax(-1)
    scale = (blocks / 127).clamp_min(torch.finfo(torch.float32).tiny)
    scale_BHT1 = scale.repeat_interleave(block, -1)[..., :tokens].unsqueeze(-1)
    x = x_BHTD / scale_BHT1
    return torch.trunc(x + torch.where(x >= 0, 0.5, -0.5)), scale_BHT1


def _masked(s_BHTT: Tensor, start: int, call: Call) -> Tensor:
    """Scores in base 2 with -inf for what must not be seen."""
    import torch

    if call.causal:
        seen = torch.ones(s_BHTT.shape[-2:], dtype=torch.bool, device=s_BHTT.device).tril(start)
        s_BHTT = s_BHTT.masked_fill(~seen, float("-inf"))
    if call.mask is None:
        return s_BHTT
    mask = call.mask
    if mask.dim() > 1 and mask.shape[-2] > 1:
        mask = mask[..., start : start + s_BHTT.shape[-2], :]
    return s_BHTT.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else s_BHTT + mask * 1.44269504


def _probable(s_BHTT: Tensor, v_BHTD: Tensor) -> Tensor:
    import torch

    # a query from which every key is hidden gives 0, as PyTorch's own attention does
    numbers = torch.finfo(s_BHTT.dtype)
    p = (s_BHTT - s_BHTT.amax(-1, keepdim=True).clamp_min(numbers.min)).exp2()
    return (p.half().float() @ v_BHTD) / p.sum(-1, keepdim=True).clamp_min(numbers.tiny)
