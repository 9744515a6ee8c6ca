"""Masks are looked at once in a generation, in every guidance branch; what changes afterwards is told of."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

from ditstack.attention.dispatch import Call, Declined, replace_attention
from ditstack.attention.masks import Masks, Seen, without_hidden
from ditstack.pipeline.pipe import Pipe
from ditstack.testing import tiny_pipelines as tiny
from ditstack_adapters.attention import sage

P = ["a cat", "a dog walks slowly over the grass"]
STEPS = 3


@contextmanager
def looks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Tensor]]:
    """The masks that were really looked at, each of which a GPU would be waited for."""
    seen: list[Tensor] = []
    look = Masks.seen.__globals__["_look"]

    def noting(keys: Tensor) -> Seen:
        seen.append(keys)
        return look(keys)

    monkeypatch.setitem(Masks.seen.__globals__, "_look", noting)
    yield seen


def test_a_generation_waits_for_one_look_at_the_mask_of_each_branch(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = tiny.hunyuan_video()
    want = tiny.call(pipeline, P[:1], STEPS, output_type="latent")
    pipe = Pipe(pipeline)

    def kernel(q: Tensor, k: Tensor, v: Tensor, call: Call) -> Tensor | Declined:
        k, v, reason = without_hidden(k, v, call)
        assert reason is None
        return scaled_dot_product_attention(q, k, v, scale=call.scale)

    replacement = replace_attention(pipe, "unmasked", kernel)
    with looks(monkeypatch) as looked:
        for _ in range(2):
            torch.testing.assert_close(tiny.call(pipeline, P[:1], STEPS, output_type="latent"), want)
    assert replacement.ran["kernel"] >= 3 * STEPS
    assert looked
    assert len(looked) <= 2 * len({(one.shape, one.stride()) for one in looked})
    assert not any("changed within" in note for note in pipe.notes)


class Waits(TorchDispatchMode):
    """Counts what a GPU would be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += str(func) in ("aten._local_scalar_dense.default", "aten.nonzero.default")
        return func(*args, **(kwargs or {}))


def test_a_mask_met_again_makes_nobody_wait_and_one_that_changed_is_told_of() -> None:
    pipe = Pipe(tiny.flux())
    masks = Masks(pipe)
    first = torch.arange(12).view(1, 1, 12) < 7
    seen = masks.seen(first, "a")
    assert seen.where == slice(0, 7)
    with Waits() as waits:
        assert masks.seen(first.clone(), "a") is seen
        assert masks.seen(first, "b") is seen
    assert waits.count == 0
    for begin_or_end in pipe.clock.on_edge:
        begin_or_end()
    assert pipe.notes == []
    masks.seen(first, "a")
    masks.seen(~first, "a")
    for begin_or_end in pipe.clock.on_edge:
        begin_or_end()
    (note,) = pipe.notes
    assert "a mask changed within a generation" in note


def test_a_call_that_a_kernel_declines_keeps_what_was_done_for_it() -> None:
    q, k, v = (torch.randn(1, 2, 80, 64, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    mask = (torch.arange(80) < 70).view(1, 1, 1, 80)
    call = Call("here", mask, False, 64**-0.5)  # pyright: ignore[reportArgumentType]
    out = sage.attend_1(q, k, v, call)
    assert isinstance(out, Declined)
    assert "70 keys are not a multiple of 64" in out.reason
    assert out.instead is not None
    want = scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(out.instead, want)
    # through a pipe the answer is taken as it is
    pipeline = tiny.hunyuan_video()
    want = tiny.call(pipeline, P[:1], 1, output_type="latent")
    pipe = Pipe(pipeline)
    given: list[Any] = []

    def shy(q: Tensor, k: Tensor, v: Tensor, call: Call) -> Declined:
        instead = scaled_dot_product_attention(q, k, v, call.mask, scale=call.scale)
        given.append(instead)
        return Declined("it is shy", instead)

    replace_attention(pipe, "shy", shy)
    torch.testing.assert_close(tiny.call(pipeline, P[:1], 1, output_type="latent"), want)
    assert given
