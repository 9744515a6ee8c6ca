"""sage: its guards, and its kernels under Triton's interpreter against the emulation."""

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ditstack.attention.dispatch import Call, Declined
from ditstack.recipe.capabilities import Capability
from ditstack.recipe.plan import plan
from ditstack.recipe.recipe import Recipe
from ditstack_adapters.attention import int8qk, sage


def call(q: Tensor, mask: Tensor | None = None, causal: bool = False) -> Call:
    return Call("here", mask, causal, q.shape[-1] ** -0.5)  # pyright: ignore[reportArgumentType]


def qkv(queries: int, keys: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    seed = torch.Generator().manual_seed(0)
    q = torch.randn(1, 2, queries, width, generator=seed)
    k = torch.randn(1, 2, keys, width, generator=seed) + 2 * torch.randn(1, 2, 1, width, generator=seed)
    return q, k, torch.randn(1, 2, keys, width, generator=seed)


@pytest.fixture(scope="module")
def kernel() -> Callable[..., Tensor]:
    """sageattention 1.x's function on CPU tensors: its check of the device is lifted, the rest is as installed."""
    pytest.importorskip("triton", reason="pip install 'ditstack[test-kernels]'")
    core = pytest.importorskip("sageattention.core", reason="pip install 'ditstack[test-kernels]'")
    source = inspect.getsource(core.sageattn)
    assert "assert q.is_cuda" in source, "these tests know sageattention 1.x only"
    exec(source.replace("assert q.is_cuda", "assert True"), vars(core))
    return core.sageattn


@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize("causal", [False, True])
def test_the_emulation_agrees_with_the_kernel(
    kernel: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch, width: int, causal: bool
) -> None:
    q, k, v = qkv(*((128, 128) if causal else (200, 192)), width)
    before = k.clone()
    monkeypatch.setattr(sage, "_sage", lambda: kernel)
    out = sage.attend_1(q, k, v, call(q, causal=causal))
    assert isinstance(out, Tensor)
    torch.testing.assert_close(k, before, rtol=0, atol=0, msg="the caller's k was changed")
    baseline = int8qk.attend(q, k, v, call(q, causal=causal))
    assert (out - baseline).norm() / baseline.norm() < 1e-3


def test_the_kernel_is_wrong_where_the_guard_says_so(kernel: Callable[..., Tensor]) -> None:
    q, k, v = qkv(80, 80, 64)
    assert sage.refusal_1(q, k, causal=False) is not None
    dense = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    assert (kernel(q, k.clone(), v) - dense).norm() / dense.norm() > 0.05


def test_what_1_x_answers_wrongly_is_declined_with_a_reason() -> None:
    q, k, v = qkv(80, 80, 64)
    reasons = {
        "not a multiple of 64": sage.attend_1(q, k, v, call(q)),
        "between single tokens": sage.attend_1(q, k, v, call(q, torch.zeros(80, 80))),
        "between the items": sage.attend_1(q, k, v, call(q, (torch.rand(2, 1, 1, 80) < 0.5))),
        "as many keys": sage.attend_1(q[:, :, :64], k, v, call(q, causal=True)),
        "72 wide": sage.attend_1(*qkv(64, 64, 72), call(q)),
    }
    for word, out in reasons.items():
        assert isinstance(out, Declined)
        assert word in out.reason


def test_what_2_x_cannot_take_is_declined_with_a_reason() -> None:
    q, k, v = (one.bfloat16() for one in qkv(80, 80, 64))
    assert sage.refusal_2(q) is None
    assert "between single tokens" in str(sage.attend_2(q, k, v, call(q, torch.zeros(80, 80))))
    assert "fp16 and bf16" in str(sage.attend_2(q.float(), k, v, call(q)))
    assert "256 wide" in str(sage.attend_2(q.repeat(1, 1, 1, 4), k, v, call(q)))


@pytest.mark.parametrize("attend", [sage.attend_1, sage.attend_2])
def test_keys_that_a_mask_hides_from_all_are_left_out(
    attend: Callable[..., Tensor | Declined], monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k, v = (one.bfloat16() for one in qkv(80, 80, 64))
    mask = (torch.arange(80) % 5 > 0).expand(2, 1, 1, -1)
    q, k, v = (torch.cat([one, one.flip(-2)]) for one in (q, k, v))
    given: list[Tensor] = []

    def dense(q: Tensor, k: Tensor, v: Tensor, sm_scale: float, is_causal: bool, **_: object) -> Tensor:
        given.append(k)
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=is_causal, scale=sm_scale)

    monkeypatch.setattr(sage, "_sage", lambda: dense)
    out = attend(q, k, v, call(q, mask))
    assert isinstance(out, Tensor)
    assert given[0].shape[-2] == 64
    want = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(out, want, rtol=0.03, atol=0.01)


def test_without_a_gpu_it_is_refused_by_a_fact() -> None:
    recipe = Recipe.parse({"model": {"method": "flux"}, "attention": {"method": "sage"}})
    reasons = [reason for step in plan(recipe, "cpu") for reason in step.reasons]
    assert f"attention sage requires that {Capability.CUDA.sentence}" in reasons
