"""The fastest of the kernels that can stand is taken, once for each of the model's shapes; made-up clocks tell."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ditstack import apply
from ditstack.attention import rivals
from ditstack.attention.dispatch import Call, Declined
from ditstack.attention.rivals import Fastest
from ditstack.recipe.recipe import Recipe
from ditstack.testing import tiny_pipelines as tiny

SECONDS = {"native": 3e-3, "quick": 1e-3, "wrong": 1e-4, "shy": 1e-5, "broken": 1e-6}
P = ["a cat"]


def dense(q: Tensor, k: Tensor, v: Tensor, call: Call) -> Tensor:
    return scaled_dot_product_attention(q, k, v, is_causal=call.causal, scale=call.scale)


def broken(*_: Any) -> Tensor:
    raise RuntimeError("no kernel image is available\nmore")


KERNELS: dict[str, Any] = {
    "quick": lambda q, k, v, call: dense(q, k, v, call) * 1.01,
    "wrong": lambda q, k, v, call: dense(q, k, v, call) * 1.2,
    "shy": lambda *_: Declined("it is shy"),
    "broken": broken,
}


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each kernel was timed; the clock is made up."""
    timed: Counter[str] = Counter()

    def seconds_of(run: Callable[[], Any], on_gpu: bool) -> float:
        assert run.__closure__
        (kernel,) = (cell.cell_contents for cell in run.__closure__ if callable(cell.cell_contents))
        name = next((name for name, one in KERNELS.items() if one is kernel), "native")
        timed[name] += 1
        return SECONDS[name]

    monkeypatch.setattr(rivals, "seconds_of", seconds_of)
    return timed


def qkv(tokens: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = (torch.randn(1, 2, tokens, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    return q, k, v


def call(mask: Tensor | None = None) -> Call:
    return Call("here", mask, False, 8**-0.5)  # pyright: ignore[reportArgumentType]


def test_the_fastest_that_agrees_is_taken_and_measured_once_for_each_shape(ran: Counter[str]) -> None:
    told: list[str] = []
    fastest = Fastest(KERNELS, 0.05, told.append)
    for tokens in (16, 16, 24, 16):
        out = fastest(*qkv(tokens), call())
        assert isinstance(out, Tensor)
        torch.testing.assert_close(out, 1.01 * dense(*qkv(tokens), call()))
    assert ran == {"native": 2, "quick": 2}
    assert set(fastest.chosen.values()) == {"quick"}
    first, _ = told
    assert first.startswith("attention auto takes quick 1.000 ms, 0.01 away for 2 heads of 8, 16 by 16 tokens, 1 items")
    for said in (
        "native 3.000 ms", "wrong not, because what it makes lies 0.2 from", "shy not, because it is shy",
        "broken not, because no kernel image is available",
    ):  # fmt: skip
        assert said in first


def test_without_a_faster_one_it_is_pytorchs_own_to_the_bit(ran: Counter[str]) -> None:
    fastest = Fastest({"wrong": KERNELS["wrong"]}, 0.05, lambda _: None)
    assert torch.equal(torch.as_tensor(fastest(*qkv(), call())), dense(*qkv(), call()))
    assert fastest.chosen.popitem()[1] == "native"


def test_hidden_keys_are_left_out_and_a_mask_between_tokens_is_declined(ran: Counter[str]) -> None:
    fastest = Fastest({}, 0.05, lambda _: None)
    mask = (torch.arange(16) < 9).view(1, 1, 1, 16)
    out, want = fastest(*qkv(), call(mask)), scaled_dot_product_attention(*qkv(), attn_mask=mask)
    torch.testing.assert_close(torch.as_tensor(out), want)
    assert isinstance(fastest(*qkv(), call(torch.zeros(16, 16))), Declined)


def test_a_recipe_says_in_its_report_what_was_taken(ran: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals, "_offered", lambda device: {"sage": KERNELS["quick"]})
    data: dict[str, Any] = {"model": {"method": "flux", "device": "cpu"}, "sampler": {"steps": 2, "size": "16x16"}}
    stack = apply(tiny.flux(), Recipe.parse({**data, "attention": "auto"}, "auto"))
    tiny.call(stack.pipeline, P, 2, output_type="latent")
    (note,) = stack.report().notes
    assert "attention auto takes sage 1.000 ms" in note
    kernel = stack.pipe.attention
    assert kernel is not None
    assert set(kernel.ran) == {"kernel"}


def test_what_a_method_offers_stands_only_where_its_needs_are_met() -> None:
    assert rivals.rivals(("native", "cudnn", "sage"), "cpu") == {}
