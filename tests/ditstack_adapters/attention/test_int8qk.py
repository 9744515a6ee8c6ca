"""int8qk: SageAttention's rounding in plain PyTorch."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ditstack import apply
from ditstack.attention.dispatch import Call
from ditstack.recipe.recipe import Recipe
from ditstack.testing import tiny_pipelines as tiny
from ditstack_adapters.attention import int8qk


def qkv(queries: int = 200, keys: int = 150, offset: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 3, queries, 64), torch.randn(2, 3, keys, 64), torch.randn(2, 3, keys, 64)
    return q, k + offset * torch.randn(64), v


def call(mask: Tensor | None = None, causal: bool = False) -> Call:
    return Call("here", mask, causal, 0.125)  # pyright: ignore[reportArgumentType]


def gap(out: Tensor, want: Tensor) -> float:
    return float((out - want).norm() / want.norm())


def test_it_is_near_dense_attention_and_not_equal() -> None:
    q, k, v = qkv()
    assert 1e-4 < gap(int8qk.attend(q, k, v, call()), scaled_dot_product_attention(q, k, v)) < 0.02


def test_smoothing_the_keys_makes_a_common_offset_harmless() -> None:
    q, k, v = qkv(offset=20.0)
    assert gap(int8qk.attend(q, k, v, call()), scaled_dot_product_attention(q, k, v)) < 0.05


@pytest.mark.parametrize("rows", [64, 1024])
def test_masks_of_every_kind_are_kept(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8qk, "ROWS", rows)
    q, k, v = qkv(150, 150)
    masks = {
        "keys": torch.rand(2, 1, 1, 150) < 0.5,
        "pairs": (torch.rand(150, 150) < 0.5) | torch.eye(150).bool(),
        "added": torch.randn(2, 1, 150, 150) * 3,
        "added keys": torch.where(torch.rand(2, 3, 1, 150) < 0.5, 0.0, -10000.0),
    }
    for name, mask in masks.items():
        assert gap(int8qk.attend(q, k, v, call(mask)), scaled_dot_product_attention(q, k, v, mask)) < 0.02, name
    want = scaled_dot_product_attention(q, k, v, is_causal=True)
    assert gap(int8qk.attend(q, k, v, call(causal=True)), want) < 0.02


def test_rounding_is_by_block_to_the_nearest_and_half_goes_outward() -> None:
    x = torch.tensor([[127.0, 0.5], [-1.5, 1.4], [254.0, 1.0]])
    whole, scale = int8qk.rounded(x, 2)
    assert whole.tolist() == [[127.0, 1.0], [-2.0, 1.0], [127.0, 1.0]]
    assert scale.flatten().tolist() == [1.0, 1.0, 2.0]
    assert int8qk.rounded(torch.zeros(3, 2), 2)[0].abs().max() == 0


def test_the_callers_tensors_are_left_as_they_are() -> None:
    q, k, v = qkv()
    before = [one.clone() for one in (q, k, v)]
    int8qk.attend(q, k, v, call())
    assert all(torch.equal(a, b) for a, b in zip((q, k, v), before, strict=True))


def test_the_report_says_that_it_is_an_emulation() -> None:
    recipe = Recipe.parse({"model": {"method": "flux", "device": "cpu"}, "attention": {"method": "int8qk"}})
    stack = apply(tiny.flux(), recipe)
    want = tiny.call(tiny.flux(), ["a cat"], 2, output_type="latent")
    assert 1e-5 < gap(tiny.call(stack.pipeline, ["a cat"], 2, output_type="latent"), want) < 0.02
    assert any("emulation" in note for note in stack.report().notes)


def test_a_query_from_which_every_key_is_hidden_gives_zero_as_pytorchs_own_does() -> None:
    q, k, v = qkv(4, 6)
    mask = torch.ones(2, 1, 4, 6, dtype=torch.bool)
    mask[0, :, 2] = False
    out, want = int8qk.attend(q, k, v, call(mask)), scaled_dot_product_attention(q, k, v, attn_mask=mask)
    assert not out[0, :, 2].any()
    assert not want[0, :, 2].any()
    assert gap(out, want) < 0.02
