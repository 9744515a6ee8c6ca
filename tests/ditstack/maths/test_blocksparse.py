"""Block-sparse attention: the baseline on masks, FlexAttention eager and compiled, the choice of blocks, the loss."""

import os
import shutil

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ditstack.maths import blocksparse
from ditstack.maths.blocksparse import (
    Kept,
    attend,
    block_mass,
    key_order,
    losses,
    near_frames,
    needed,
    spread,
    text_blocks,
)

SIZE, SCALE = 16, 0.125


def qkv(tokens: int = 100) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, tokens, 64) for _ in range(3))
    return q + q[..., :1, :], k, v


def some_kept(tokens: int = 100) -> Tensor:
    torch.manual_seed(1)
    blocks = -(-tokens // SIZE)
    return (torch.rand(2, 2, blocks, blocks) < 0.4) | torch.eye(blocks).bool()


def keys_of(tokens: int, hidden: bool) -> Tensor | None:
    return (torch.arange(tokens) < tokens - 5).expand(2, 1, -1) if hidden else None


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("tokens", [96, 100])
def test_eager_flexattention_and_the_masked_baseline_agree(tokens: int, hidden: bool) -> None:
    from torch.nn.attention.flex_attention import flex_attention

    q, k, v = qkv(tokens)
    kept = Kept(some_kept(tokens), SIZE, tokens, keys_of(tokens, hidden))
    baseline = attend(q, k, v, kept, SCALE)
    torch.testing.assert_close(flex_attention(q, k, v, block_mask=kept.block_mask, scale=SCALE), baseline)
    assert (baseline - scaled_dot_product_attention(q, k, v, scale=SCALE)).norm() / baseline.norm() > 0.1


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")
def test_compiled_flexattention_and_the_masked_baseline_agree() -> None:
    tokens, size = 300, 128
    q, k, v = qkv(tokens)
    for seed in range(2):
        torch.manual_seed(seed)
        kept = Kept((torch.rand(2, 2, 3, 3) < 0.5) | torch.eye(3).bool(), size, tokens)
        out = blocksparse.compiled_flex()(q, k, v, block_mask=kept.block_mask, scale=SCALE)
        torch.testing.assert_close(out, attend(q, k, v, kept, SCALE), rtol=1e-4, atol=1e-5)


def test_with_every_block_kept_it_is_dense_attention() -> None:
    q, k, v = qkv()
    kept = Kept(torch.ones(2, 2, 7, 7, dtype=torch.bool), SIZE, 100)
    torch.testing.assert_close(attend(q, k, v, kept, SCALE), scaled_dot_product_attention(q, k, v, scale=SCALE))


def test_the_estimate_is_exact_where_the_tokens_of_a_block_are_alike() -> None:
    q, k, _ = (one[..., :7, :].repeat_interleave(SIZE, -2)[..., :100, :] for one in qkv())
    exact = (q @ k.mT * SCALE).softmax(-1)
    by_block = torch.stack([part.sum(-1) for part in exact.split(SIZE, -1)], -1)[..., ::SIZE, :]
    torch.testing.assert_close(block_mass(q, k, SCALE, SIZE), by_block)


def test_hidden_keys_carry_no_mass() -> None:
    q, k, _ = qkv()
    keys = (torch.arange(100) < 40).expand(2, 1, -1)
    mass = block_mass(q, k, SCALE, SIZE, keys)
    assert mass[..., 3:].abs().max() == 0
    seen = block_mass(q[..., :40, :], k[..., :40, :], SCALE, SIZE)
    torch.testing.assert_close(mass[..., :2, :3], seen[..., :2, :])


@pytest.mark.parametrize("hidden", [False, True])
def test_the_measured_loss_is_that_of_the_measured_blocks_of_queries(hidden: bool) -> None:
    q, k, v = qkv()
    keys = keys_of(100, hidden)
    order = block_mass(q, k, SCALE, SIZE, keys).argsort(dim=-1, descending=True)
    lost = losses(q, k, v, SCALE, SIZE, order, range(1, 7), keys)
    dense = attend(q, k, v, Kept(torch.ones(2, 2, 7, 7, dtype=torch.bool), SIZE, 100, keys), SCALE)[..., SIZE:, :]
    for count in (1, 3, 7):
        kept = torch.zeros(2, 2, 7, 7, dtype=torch.bool).scatter(-1, order[..., :count], True)
        gap = attend(q, k, v, Kept(kept, SIZE, 100, keys), SCALE)[..., SIZE:, :] - dense
        want = gap.norm(dim=(-1, -2)) / dense.norm(dim=(-1, -2))
        torch.testing.assert_close(lost[..., count - 1], want, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("tolerance", [0.02, 0.1, 0.3])
def test_the_share_that_a_head_needs_is_the_smallest_that_loses_little_enough(tolerance: float) -> None:
    q, k, v = qkv()
    text = text_blocks((0, 20), 100, SIZE, torch.device("cpu"))
    share = needed(q, k, v, SCALE, SIZE, text, tolerance)
    order = key_order(block_mass(q, k, SCALE, SIZE), text)
    lost = losses(q, k, v, SCALE, SIZE, order, range(2, 7))
    count = (share * 5).round().long() + 2
    assert (lost.gather(-1, count.unsqueeze(-1) - 1) <= tolerance).all()
    fewer = (count - 2).clamp_min(0).unsqueeze(-1)
    assert ((lost.gather(-1, fewer) > tolerance).squeeze(-1) | (share == 0)).all()
    assert order[..., :2].sort(-1).values.eq(torch.arange(2)).all()


def test_blocks_that_hold_text_are_known() -> None:
    assert text_blocks((0, 20), 100, SIZE, torch.device("cpu")).tolist() == [True, True, *[False] * 5]
    assert text_blocks((80, 100), 100, SIZE, torch.device("cpu")).tolist() == [*[False] * 5, True, True]
    assert not text_blocks(None, 100, SIZE, torch.device("cpu")).any()


def test_near_frames_see_each_other_wherever_the_text_lies() -> None:
    band = torch.tensor([[abs(i - j) <= 1 for j in range(4)] for i in range(4)])
    assert torch.equal(near_frames(None, 4 * SIZE, SIZE, 4, 1), band)  # pyright: ignore[reportArgumentType]
    first = near_frames((0, SIZE), 5 * SIZE, SIZE, 4, 1)
    last = near_frames((4 * SIZE, 5 * SIZE), 5 * SIZE, SIZE, 4, 1)
    assert first is not None
    assert last is not None
    assert torch.equal(first[1:, 1:], band)
    assert torch.equal(last[:4, :4], band)
    shared = near_frames(None, 6 * 8, SIZE, 6, 0)  # two frames in a block
    assert torch.equal(shared, torch.eye(3).bool())  # pyright: ignore[reportArgumentType]
    assert near_frames(None, 50, SIZE, 4, 1) is None
    assert near_frames(None, 64, SIZE, 1, 1) is None


def test_samples_are_spread_evenly() -> None:
    assert spread(list(range(10)), 5) == [0, 2, 4, 6, 8]
    assert spread([3, 4], 5) == [3, 4]
    assert spread([], 5) == []
