"""The user's pipe is read: fused projections, offload by groups, rounded or split weights stand, or are refused."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ditstack import BadFile, BadPipeline, Incompatible, StaleFactors, apply
from ditstack.testing import tiny_pipelines as tiny
from ditstack.testing.tiny_pipelines import call
from ditstack_adapters.quantize.bitsandbytes import BitsAndBytes
from ditstack_adapters.quantize.torchao import TorchAo

P = ["a red circle"]
STEPS = 6
CPU = torch.device("cpu")
SVD: dict[str, Any] = {"cache": {"method": "svdcache", "interval": 2}}
INT8: dict[str, Any] = {"quantize": {"method": "torchao", "scheme": "int8"}}
NF4: dict[str, Any] = {"quantize": {"method": "bitsandbytes", "scheme": "nf4"}}


def recipe(method: str = "flux", **stages: Any) -> dict[str, Any]:
    sampler = {"steps": STEPS, "size": "16x16"}
    return {"model": {"method": method, "device": "cpu"}, "sampler": sampler, "calibration": ["a", "b"], **stages}


def icc(folder: Path, calibrate: str = "auto") -> dict[str, Any]:
    file = str(folder / "f.safetensors")
    return {"cache": {"method": "icc", "interval": 2, "rank": 4, "calibrate": calibrate, "factors": file}}


def test_fused_projections_are_cached_whichever_came_first(tmp_path: Path) -> None:
    for stages, word in ((SVD, "forecast"), (icc(tmp_path), "calibrated")):
        pipeline = tiny.flux()
        pipeline.transformer.fuse_qkv_projections()
        plain = call(pipeline, P, STEPS)
        stack = apply(pipeline, recipe(**stages))
        call(pipeline, P, STEPS)
        assert stack.report().steps == {"full": 3, word: 3}
        assert stack.report().macs_ratio < 0.7
        with stack.off():
            assert torch.equal(call(pipeline, P, STEPS), plain)
        stack = apply(pipeline := tiny.flux(), recipe(**stages))
        call(pipeline, P, STEPS)
        pipeline.transformer.fuse_qkv_projections()
        call(pipeline, P, STEPS)
        assert stack.report().steps == {"full": 3, word: 3}
        assert any("projections were fused" in note for note in stack.notes)


@pytest.mark.parametrize("kind", ["leaf_level", "block_level"])
def test_groups_may_be_offloaded_under_a_stack_and_before_it(kind: str, tmp_path: Path) -> None:
    how: dict[str, Any] = {"onload_device": CPU, "offload_device": CPU, "offload_type": kind}
    how |= {"num_blocks_per_group": 1} if kind == "block_level" else {}
    for stages in (SVD, icc(tmp_path), {**INT8, **SVD}):
        want = call(apply(tiny.flux(), recipe(**stages)).pipeline, P, STEPS)
        after, before = tiny.flux(), tiny.flux()
        apply(after, recipe(**stages))
        after.transformer.enable_group_offload(**how)
        before.transformer.enable_group_offload(**how)
        apply(before, recipe(**stages))
        assert torch.equal(call(after, P, STEPS), want)
        assert torch.equal(call(before, P, STEPS), want)


@pytest.mark.parametrize("rounding", [INT8, NF4], ids=["torchao", "bitsandbytes"])
def test_what_cannot_be_done_with_rounded_weights_is_said_in_a_sentence(rounding: Any, tmp_path: Path) -> None:
    stack = apply(pipeline := tiny.flux(), recipe(**rounding, **SVD))
    want = call(pipeline, P, STEPS)
    with pytest.raises(BadPipeline, match="save the pipeline before `apply`"):
        pipeline.save_pretrained(tmp_path)
    with pytest.raises(BadPipeline, match=r"rounded in place by quantize .* fuse before `apply`"):
        pipeline.transformer.fuse_qkv_projections()
    assert torch.equal(call(pipeline, P, STEPS), want)
    stack.remove()
    with pytest.raises(BadPipeline, match="save the pipeline before `apply`"):
        pipeline.save_pretrained(tmp_path)


def test_a_pipe_that_bitsandbytes_rounded_is_cached_and_not_rounded_again(tmp_path: Path) -> None:
    for stages, word in ((SVD, "forecast"), (icc(tmp_path), "calibrated")):
        pipeline = tiny.flux()
        for block in pipeline.transformer.transformer_blocks:
            BitsAndBytes(scheme="nf4")._swap_linears(block)
        with pytest.raises(Incompatible, match=r"the pipeline is quantized already: .* is bitsandbytes'"):
            apply(pipeline, recipe(**INT8, **SVD))
        stack = apply(pipeline, recipe(**stages))
        call(pipeline, P, STEPS)
        assert stack.report().steps == {"full": 3, word: 3}


def test_a_transformer_split_over_devices_is_refused_where_its_linears_are_read(tmp_path: Path) -> None:
    pipeline = tiny.flux()
    pipeline.transformer._parallel_config = SimpleNamespace(context_parallel_config=None, tensor_parallel_config=1)
    for stages in (icc(tmp_path), INT8):
        with pytest.raises(Incompatible, match="is split over devices"):
            apply(pipeline, recipe(**stages))


def test_factors_that_cannot_serve_are_refused_before_weights_are_rounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(tiny.flux(), recipe(**INT8, **icc(tmp_path)))

    def no(self: TorchAo, pipe: Any) -> None:
        raise AssertionError("weights were rounded")

    monkeypatch.setattr(TorchAo, "apply", no)
    with pytest.raises(BadFile, match="there is no factors file"):
        apply(tiny.flux(), recipe(**INT8, **icc(tmp_path / "other", "never")))
    wider = icc(tmp_path, "never")
    wider["cache"]["rank"] = 8
    with pytest.raises(StaleFactors, match="another cache;"):
        apply(tiny.flux(), recipe(**INT8, **wider))
    with pytest.raises(AssertionError, match="were rounded"):
        apply(tiny.flux(), recipe(**INT8, **icc(tmp_path, "never")))


def test_auto_runs_a_pipeline_that_is_told_classes() -> None:
    stack = apply(tiny.dit(), recipe("auto", **SVD) | {"sampler": {"steps": STEPS}})
    made = stack.sample(["7", "8"])
    assert made.steps == {"full": 3, "forecast": 3}
    own = apply(tiny.dit(), recipe("dit", **SVD) | {"sampler": {"steps": STEPS}}).sample(["7", "8"])
    assert torch.equal(made.images, own.images)
