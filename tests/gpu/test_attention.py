"""Kernels on a GPU against their plain baselines, and faster where that is what they are for."""

from importlib.metadata import version

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention

from ditstack.attention.dispatch import Call
from ditstack.maths.blocksparse import Kept, attend
from ditstack.weights.dense import dense
from ditstack_adapters.attention import int8qk, sage
from ditstack_adapters.quantize.bitsandbytes import BitsAndBytes

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]

WIDTH = 128


def qkv(tokens: int, heads: int = 24) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, heads, tokens, WIDTH, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    return q, k, v


def call() -> Call:
    return Call("here", None, False, WIDTH**-0.5)  # pyright: ignore[reportArgumentType]


def milliseconds(run: object) -> float:
    assert callable(run)
    for _ in range(3):
        run()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()  # pyright: ignore[reportCallIssue]
    for _ in range(10):
        run()
    end.record()  # pyright: ignore[reportCallIssue]
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 10


def test_sage_agrees_with_its_emulation() -> None:
    pytest.importorskip("sageattention")
    attend_sage = sage.attend_1 if version("sageattention").startswith("1.") else sage.attend_2
    q, k, v = qkv(4608)
    out, baseline = attend_sage(q, k, v, call()), int8qk.attend(q, k, v, call())
    assert isinstance(out, Tensor)
    assert (out.float() - baseline.float()).norm() / baseline.float().norm() < 0.02


@pytest.mark.parametrize("tokens", [4608, 4500])
def test_flexattention_agrees_with_the_masked_twin(tokens: int) -> None:
    q, k, v = qkv(tokens, heads=4)
    blocks = -(-tokens // 128)
    chosen = (torch.rand(1, 4, blocks, blocks, device="cuda") < 0.5) | torch.eye(blocks, device="cuda").bool()
    kept = Kept(chosen, 128, tokens)
    baseline = scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=kept.seen)
    out = attend(q, k, v, kept, WIDTH**-0.5).float()
    assert (out - baseline).norm() / baseline.norm() < 0.01


def test_half_of_the_blocks_at_8k_tokens_are_faster_than_dense_attention() -> None:
    q, k, v = qkv(8192)
    chosen = torch.rand(1, 24, 64, 64, device="cuda").argsort(-1) < 32
    kept = Kept(chosen, 128, 8192)
    thinned = milliseconds(lambda: attend(q, k, v, kept, WIDTH**-0.5))
    assert thinned < milliseconds(lambda: scaled_dot_product_attention(q, k, v))


@pytest.mark.parametrize("scheme", ["int8", "nf4", "fp4"])
def test_weights_of_bitsandbytes_are_read_back_as_they_multiply(scheme: str) -> None:
    plain = torch.nn.Linear(256, 512, device="cuda", dtype=torch.bfloat16)
    swapped = BitsAndBytes(scheme=scheme)._swapped(plain)  # pyright: ignore[reportArgumentType]
    x = torch.randn(64, 256, device="cuda", dtype=torch.bfloat16)
    before = dense(swapped)
    with torch.inference_mode():
        out = swapped(x)
    assert torch.equal(before, dense(swapped))
    baseline = linear(x, before.bfloat16(), plain.bias)
    assert (out - baseline).norm() / baseline.norm() < 0.02
