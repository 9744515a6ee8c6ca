"""The seam through which a kernel answers attention in one pipe: every family, nothing else, nothing dropped."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ditstack.attention.dispatch import Call, Declined, Layout, replace_attention
from ditstack.errors import BadPipeline
from ditstack.pipeline.macs import MacCounter
from ditstack.pipeline.pipe import Pipe
from ditstack.testing import tiny_pipelines as tiny

P = ["a cat", "a dog"]


class Listening:
    """Attends as PyTorch does, and remembers every call."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.lengths: set[tuple[int, int]] = set()

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, call: Call) -> Tensor:
        self.calls.append(call)
        self.lengths.add((q.shape[2], k.shape[2]))
        return scaled_dot_product_attention(q, k, v, call.mask, is_causal=call.causal, scale=call.scale)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_attention_of_every_family_is_answered_and_an_equal_kernel_changes_nothing(family: str) -> None:
    pipeline = tiny.FAMILIES[family]()
    want = tiny.call(pipeline, P, 2)
    kernel = Listening()
    try:
        pipe = Pipe(pipeline)
    except BadPipeline as error:
        pytest.skip(str(error))
    replacement = replace_attention(pipe, "listening", kernel)
    assert torch.equal(tiny.call(pipeline, P, 2), want)
    assert replacement.ran == {"kernel": len(kernel.calls)}
    sites = {call.site.name for call in kernel.calls}
    for stage, blocks in pipe.blocks.items():
        for block in blocks:
            assert any(site.startswith(f"{stage}.{block.name}") for site in sites)


TEXT = {"flux": (0, 64), "qwen_image": (0, 9), "cogvideo": (0, 64), "sd3": (16, 157), "hunyuan_video": (32, 96)}
"""Text comes first in some families and last in others."""


@pytest.mark.parametrize("family", TEXT)
def test_text_tokens_are_found_where_they_lie(family: str) -> None:
    kernel = Listening()
    pipe = Pipe(tiny.FAMILIES[family]())
    replace_attention(pipe, "listening", kernel)
    for _ in range(2):
        tiny.call(pipe.pipeline, ["a cat"], 1, output_type="latent")
    assert {call.text for call in kernel.calls} == {TEXT[family]}


def test_frames_of_a_video_are_counted() -> None:
    for family, frames in {"wan": 3, "hunyuan_video": 2, "ltx": 2, "cogvideo": 3, "flux": 1}.items():
        kernel = Listening()
        pipe = Pipe(tiny.FAMILIES[family]())
        replace_attention(pipe, "listening", kernel)
        tiny.call(pipe.pipeline, ["a cat"], 1, output_type="latent")
        assert {call.frames for call in kernel.calls} == {frames}, family


def test_where_text_cannot_be_told_from_the_rest_everything_counts_as_text() -> None:
    layout = Layout()
    with layout.enter(1, torch.zeros(1, 16, 8)):
        torch.cat([torch.zeros(1, 16, 2, 8), torch.zeros(1, 16, 2, 8)], dim=1)
        torch.cat([torch.zeros(1, 16, 4), torch.zeros(1, 16, 4)], dim=-1)
        torch.cat([torch.zeros(1, 2, 48, 8), torch.zeros(1, 2, 16, 8)], dim=2)
    assert layout.text(32) == (0, 32)
    assert layout.text(64) == (48, 64)
    assert layout.text(16) is None


def test_another_pipeline_of_the_same_class_is_untouched() -> None:
    first, second = tiny.flux(), tiny.flux()
    want = tiny.call(second, P, 2, output_type="latent")
    replace_attention(Pipe(first), "zero", lambda q, k, v, call: torch.zeros_like(q))
    assert not torch.equal(tiny.call(first, P, 2, output_type="latent"), want)
    assert torch.equal(tiny.call(second, P, 2, output_type="latent"), want)
    assert type(first.transformer.transformer_blocks[0].attn.processor).__name__ == "FluxAttnProcessor"
    assert isinstance(
        first.transformer.transformer_blocks[0].attn.processor,
        type(second.transformer.transformer_blocks[0].attn.processor),
    )


def test_a_declined_call_runs_as_ever_and_the_report_says_why_once() -> None:
    pipeline = tiny.flux()
    want = tiny.call(pipeline, P, 2, output_type="latent")
    pipe = Pipe(pipeline)
    replacement = replace_attention(pipe, "shy", lambda q, k, v, call: Declined("it is shy"))
    assert torch.equal(tiny.call(pipeline, P, 2, output_type="latent"), want)
    assert pipe.notes == ["attention shy: some calls went to PyTorch's own kernel, because it is shy"]
    assert replacement.ran == {"it is shy": 10}


def test_products_are_counted_as_the_kernel_says_and_never_twice() -> None:
    def spent(share: float | None) -> int:
        pipe = Pipe(tiny.flux())

        def kernel(q: Tensor, k: Tensor, v: Tensor, call: Call) -> Tensor | Declined:
            if share is None:
                return Declined("it must not be counted twice")
            call.share = share
            return (q @ k.mT) @ v

        replace_attention(pipe, "counted", kernel)
        tiny.call(pipe.pipeline, P, 1, output_type="latent")
        return pipe.passes.macs

    plain = Pipe(tiny.flux())
    tiny.call(plain.pipeline, P, 1, output_type="latent")
    attention = 5 * 2 * 2 * (2 * 80 * 80 * 64)  # blocks, items, heads
    assert spent(1.0) == spent(None) == plain.passes.macs
    assert plain.passes.macs - spent(0.25) == 0.75 * attention
    assert MacCounter.active == []


def test_blocks_still_compile_as_one_graph_each_share_it_between_layers_and_keep_it_for_the_next_call() -> None:
    pipe = Pipe(tiny.flux())
    replace_attention(pipe, "product", lambda q, k, v, call: ((q @ k.mT) * call.scale).softmax(-1) @ v)
    want = tiny.call(pipe.pipeline, P, 3, output_type="latent")
    graphs = []

    def backend(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    for block in pipe.blocks["transformer"]:
        block.module.compile(backend=backend, fullgraph=True)
    out = tiny.call(pipe.pipeline, P, 3, output_type="latent")
    assert 2 <= (first := len(graphs)) <= 4
    torch.testing.assert_close(out, want, rtol=1e-4, atol=1e-5)
    assert torch.equal(tiny.call(pipe.pipeline, P, 3, output_type="latent"), out)
    assert len(graphs) == first
