"""Compare: a stack beside the pipeline that it stands on, in Python and in a notebook."""

import contextlib
import io
from typing import Any

import pytest
import torch

from ditstack import apply, load
from ditstack.assembly import comparison
from ditstack.calibration.sampler.fit import SamplerWish
from ditstack.errors import BadPipeline
from ditstack.pipeline.pipe import Pipe
from ditstack.testing import tiny_pipelines as tiny

RECIPE: dict[str, Any] = {
    "model": "flux",
    "attention": {"method": "sparse", "keep": 0.5, "block_size": 4},
    "cache": {"method": "svdcache", "interval": 2},
    "sampler": {"steps": 4, "size": "16x16"},
}
SAID = ["a red circle", "a blue star"]


def test_a_users_own_pipeline_is_compared_with_itself_unaccelerated() -> None:
    pipeline = tiny.flux()
    plain = load_plain(pipeline)
    stack = apply(pipeline, RECIPE)
    report, grid = stack.compare(SAID)
    assert report.compare is not None
    want = comparison.fidelity.psnr(stack.sample(SAID).images, plain)
    assert report.compare.psnr.each == pytest.approx(want)
    assert min(want) < 60  # it did something
    assert grid.size[1] > grid.size[0] / 2
    assert report.prompts == SAID
    assert stack.pipe.passes.steps == {"full": 2, "forecast": 2}
    stack.remove()
    assert torch.equal(load_plain(pipeline), plain)


def load_plain(pipeline: Any) -> torch.Tensor:
    """The pictures of a pipeline that carries nothing."""
    stack = apply(pipeline, {"model": "flux", "sampler": RECIPE["sampler"]})
    made = stack.sample(SAID).images
    stack.remove()
    return made


def test_rounded_weights_ask_for_a_pipeline_loaded_again() -> None:
    stack = apply(tiny.flux(), {**RECIPE, "quantize": "torchao"})
    with pytest.raises(
        BadPipeline, match=r"rounded the weights in place.*stack\.compare\(prompts, plain=that_pipeline\)"
    ):
        stack.compare(SAID)
    with pytest.raises(BadPipeline, match="found no prompts"):
        stack.compare([], plain=tiny.flux())
    report, _ = stack.compare(SAID, plain=tiny.flux())
    assert report.compare is not None
    assert max(report.compare.psnr.each) < 80


def test_a_notebook_shows_short_words_and_pictures() -> None:
    found = apply(tiny.flux(), RECIPE).compare(SAID)
    report, pictures = found.report, apply(tiny.flux(), RECIPE).sample(SAID)
    for one in (found, report, pictures):
        assert len(repr(one)) < 300
        assert "\n" not in repr(one)
    assert repr(report).startswith("Report(recipe: pictures 2; steps 2 full + 2 forecast; MACs ")
    assert "PSNR " in repr(report)
    assert "Pictures(2 pictures of 16 x 16; 2 full + 2 forecast steps; " in repr(pictures)
    assert "data:image/png;base64," in found._repr_html_()
    assert "data:image/png;base64," in pictures._repr_html_()
    report.notes.append("<script>")
    assert "&lt;script&gt;" in report._repr_html_()


def test_progress_is_one_bar_and_the_pipelines_own_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    bars: list[Any] = []

    class Bar(comparison.tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            bars.append(self)

    monkeypatch.setattr(comparison, "tqdm", Bar)
    pipeline = tiny.flux()
    pipeline.set_progress_bar_config(desc="mine")
    stack = apply(pipeline, RECIPE)
    told = io.StringIO()
    with contextlib.redirect_stderr(told):
        stack.compare(SAID)
    assert [(bar.n, bar.total) for bar in bars] == [(8, 8)]
    assert "mine" not in told.getvalue()
    assert pipeline._progress_bar_config == {"desc": "mine"}
    assert not stack.pipe.clock.on_tick


def test_what_stands_is_as_it_was_after_a_comparison_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = apply(tiny.flux(), RECIPE)
    want = stack.sample(SAID).images

    def fail(*_: object) -> None:
        raise BadPipeline("no")

    monkeypatch.setattr(comparison, "warm_up", fail)
    with pytest.raises(BadPipeline, match="no"):
        stack.compare(SAID)
    assert not stack.pipe.clock.on_tick
    assert torch.equal(stack.sample(SAID).images, want)


def test_a_fitted_sampler_is_compared_with_the_schedule_that_the_pipeline_came_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SamplerWish, "reference_steps", 6)
    solver = {
        "method": "solver",
        "evaluations": 3,
        "iterations": 1,
        "tries": 1,
        "batch": 1,
        "calibrate": "auto",
        "baseline_steps": 6,
    }
    stack = load({"extends": "tiny", "distill": solver, "calibration": SAID * 2})
    seen: list[int] = []

    def look(pipe: Pipe, *_: object) -> None:
        seen.append(type(pipe.scheduler) is type(stack.pipe.scheduler))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "warm_up", look)
        report, _ = stack.compare(SAID[:1])
    assert seen == [False, True]
    assert report.steps == {"full": 3}


@pytest.mark.parametrize("cache", ["taylorseer", {"method": "fbcache", "threshold": 1.5}])
def test_diffusers_own_caches_are_compared_with_the_pipeline_without_them(cache: Any) -> None:
    pipeline = tiny.flux()
    plain = load_plain(pipeline)
    stack = apply(pipeline, {**RECIPE, "attention": "none", "cache": cache, "sampler": {"steps": 8, "size": "16x16"}})
    report, _ = stack.compare(SAID)
    assert report.compare is not None
    assert report.steps["skipped"]
    assert max(report.compare.psnr.each) < 80
    twin = type(pipeline)(**pipeline.components)
    with pytest.raises(BadPipeline, match=r"another pipeline's stack has put a cache of diffusers .*`remove\(\)` that"):
        apply(twin, RECIPE)
    stack.remove()
    assert torch.equal(load_plain(pipeline), plain)
