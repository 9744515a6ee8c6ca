"""sparse: which blocks are kept, when they are chosen anew, and what is never dropped."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import tiny_pipelines as tiny
from ditstack import apply
from ditstack.attention import Call, Declined
from ditstack.blocksparse import attend
from ditstack.errors import RecipeError
from ditstack.pipe import Pipe
from ditstack.recipe import Recipe
from ditstack_adapters.attention import sparse
from ditstack_adapters.attention.sparse import Sparse

TOKENS, TEXT = 212, (0, 20)


class Here:
    name = "here"


def call(**more: Any) -> Call:
    values = {"site": Here(), "mask": None, "causal": False, "scale": 0.125, "text": TEXT, **more}
    return Call(**values)


def qkv(sharp: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Image tokens whose neighbours are alike: what block-sparse attention lives on."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, TOKENS, 64) for _ in range(3))
    alike = torch.randn(2, 3, -(-TOKENS // 16), 64).repeat_interleave(16, -2)[..., :TOKENS, :]
    return 0.3 * q + sharp * alike, 0.3 * k + sharp * alike, v


@pytest.mark.parametrize("fields", [{"keep": 0.25}, {"mass": 0.5}, {"tolerance": 0.3}])
def test_text_sees_and_is_seen_by_everything_and_the_rest_is_thinned(fields: dict[str, float]) -> None:
    kept = Sparse(**fields).choose(*qkv(), call())  # pyright: ignore[reportArgumentType]
    assert not isinstance(kept, Declined)
    assert kept.kept[..., :2].all()
    assert kept.kept[..., :2, :].all()
    assert kept.kept[..., 2:, 2:].float().mean() < 0.7
    assert kept.kept[..., 2:, 2:].any(-1).all()


def test_keep_is_the_share_of_blocks_without_text() -> None:
    kept = Sparse(keep=0.25).choose(*qkv(), call())
    assert not isinstance(kept, Declined)
    assert (kept.kept[..., 2:, 2:].sum(-1) == 3).all()  # of 12


@pytest.mark.parametrize("tolerance", [0.02, 0.1, 0.3])
def test_no_head_loses_more_than_its_tolerance_and_a_hard_one_stays_dense(tolerance: float) -> None:
    q, k, v = qkv()
    q[:, 0], k[:, 0] = torch.randn(2, TOKENS, 64) * 0.1, torch.randn(2, TOKENS, 64) * 0.1  # it looks everywhere alike
    kept = Sparse(tolerance=tolerance).choose(q, k, v, call())
    assert not isinstance(kept, Declined)
    dense = scaled_dot_product_attention(q, k, v)
    lost = (attend(q, k, v, kept, 0.125) - dense).norm(dim=(-1, -2)) / dense.norm(dim=(-1, -2))
    assert (lost <= tolerance).all()
    share = kept.kept.float().mean((-1, -2))
    assert (share[:, 0] > share[:, 1:].amax(-1)).all()
    assert (share[:, 1:] < 1).any()
    if tolerance == 0.02:
        assert (share[:, 0] == 1).all()


def test_an_item_decides_for_itself() -> None:
    q, k, v = qkv()
    for fields in ({"keep": 0.4}, {"mass": 0.6}, {"tolerance": 0.1}):
        both = Sparse(**fields).choose(q, k, v, call())  # pyright: ignore[reportArgumentType]
        alone = Sparse(**fields).choose(q[:1], k[:1], v[:1], call())  # pyright: ignore[reportArgumentType]
        assert not isinstance(both, Declined)
        assert not isinstance(alone, Declined)
        assert torch.equal(both.kept[:1], alone.kept)


@pytest.mark.parametrize("fields", [{"keep": 1.0}, {"mass": 1.0}, {"tolerance": 0.0}])
def test_with_everything_kept_it_is_dense_attention_to_the_bit(fields: dict[str, float]) -> None:
    q, k, v = qkv()
    mask = torch.rand(2, 1, 1, TOKENS) < 0.5
    kernel = sparse._Attend(Sparse(**fields), Pipe(tiny.flux()))  # pyright: ignore[reportArgumentType]
    assert torch.equal(kernel(q, k, v, call()), scaled_dot_product_attention(q, k, v))  # pyright: ignore[reportArgumentType]
    masked = scaled_dot_product_attention(q, k, v, attn_mask=mask)
    assert torch.equal(kernel(q, k, v, call(mask=mask)), masked)  # pyright: ignore[reportArgumentType]


def test_hidden_keys_stay_hidden_and_other_masks_are_declined() -> None:
    q, k, v = qkv()
    mask = (torch.arange(TOKENS) < 150).expand(1, 1, 1, -1)
    kernel = sparse._Attend(Sparse(keep=0.5), Pipe(tiny.flux()))
    out = kernel(q, k, v, call(mask=mask))
    changed = torch.where(mask.mT, v, 7.0)
    assert torch.equal(out, kernel(q, k, changed, call(mask=mask)))  # pyright: ignore[reportArgumentType]
    reasons = [
        kernel(q, k, v, call(mask=torch.zeros(TOKENS, TOKENS))),
        kernel(q, k[..., :77, :], v[..., :77, :], call()),
        kernel(q, k, v, call(causal=True)),
    ]
    assert all(isinstance(one, Declined) for one in reasons)


def test_blocks_are_chosen_on_full_steps_and_kept_between_them_for_every_branch() -> None:
    pipe = Pipe(tiny.flux())
    kernel = sparse._Attend(Sparse(keep=0.3), pipe)
    q, k, v = qkv()
    pipe.kind = "full"
    first = kernel._now(q, k, v, call())
    pipe.kind = "calibrated"
    assert kernel._now(q.flip(2), k, v, call()) is first
    pipe.clock.branch = "other"
    assert kernel._now(q, k, v, call()) is not first
    pipe.clock.branch, pipe.kind = None, "full"
    assert kernel._now(q.flip(2), k, v, call()) is not first
    kept = kernel._now(q, k, v, call())
    assert not isinstance(kept, Declined)
    share = call()
    kernel(q, k, v, share)
    assert float(share.share) == pytest.approx(float(kept.kept.float().mean()))


def test_a_video_may_look_at_near_frames_only() -> None:
    q, k, v = qkv()
    kept = Sparse(pattern="window", frames=1).choose(q, k, v, call(frames=4))
    assert not isinstance(kept, Declined)
    assert kept.kept[0, 0, 2, 2:].tolist() == [*[True] * 6, *[False] * 6]  # tokens of frame 0 of 4, 48 tokens each
    assert isinstance(Sparse(pattern="window", frames=1).choose(q, k, v, call()), Declined)
    plain, pipe = Pipe(tiny.FAMILIES["wan"]()), Pipe(tiny.FAMILIES["wan"]())
    Sparse(pattern="window", frames=0).apply(pipe)
    want, out = (tiny.call(one.pipeline, ["a cat"], 2) for one in (plain, pipe))
    assert 0 < (out - want).norm() / want.norm() < 0.5
    assert pipe.spent < plain.spent


def test_fewer_products_are_counted_and_nothing_is_left_after_a_generation() -> None:
    recipe = {
        "model": {"method": "flux", "device": "cpu"},
        "attention": {"method": "sparse", "keep": 0.5, "block_size": 4},
    }
    stack, plain = apply(tiny.flux(), Recipe.parse(recipe)), Pipe(tiny.flux())
    for pipeline in (stack.pipeline, plain.pipeline):
        tiny.call(pipeline, ["a cat"], 2, output_type="latent")
    dense = 2 * 5 * 2 * (2 * 80 * 80 * 64)  # steps, blocks, heads
    assert plain.spent - stack.pipe.spent == pytest.approx(dense * 4 * 2 / 400, rel=1e-3)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"keep": 0.5, "mass": 0.9}, "keep and mass each say what is kept"),
        ({"pattern": "window"}, "`pattern: window` and `frames` go together"),
        ({"frames": 2}, "`pattern: window` and `frames` go together"),
        ({"pattern": "window", "frames": 2, "tolerance": 0.1}, "tolerance and frames each say what is kept"),
    ],
)
def test_two_rules_at_once_are_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        Recipe.parse({"model": {"method": "flux"}, "attention": {"method": "sparse", **fields}})
