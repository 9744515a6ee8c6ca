"""Diffusers' own caches, passed through: they fire, are counted truthfully, and are refused where they cannot work."""

from typing import Any

import pytest
import torch

from counting import block_runs, blocks_of
from ditstack.errors import BadPipeline
from ditstack.pipeline.pipe import Pipe
from ditstack.recipe.adapter import find
from ditstack.recipe.plan import plan
from ditstack.recipe.recipe import Recipe
from ditstack.testing import tiny_pipelines as tiny
from ditstack.testing.tiny_pipelines import call

P = ["a red circle", "a blue star"]
RATIOS = (1.0, 1.01, 1.0, 0.99, 1.0)
METHODS: list[tuple[str, dict[str, Any]]] = [
    ("taylorseer", {}),
    ("taylorseer", {"lite": True}),
    ("fbcache", {"threshold": 1.5}),
    ("magcache", {"ratios": RATIOS}),
]


def cached(family: str, method: str, **fields: Any) -> Pipe:
    pipe = Pipe(tiny.FAMILIES[family]())
    find("cache", method)(**fields).apply(pipe)
    return pipe


@pytest.mark.parametrize("family", ["flux", "wan", "hunyuan_video", "qwen_image", "ltx", "cogvideo"])
@pytest.mark.parametrize(("method", "fields"), METHODS)
def test_it_skips_what_it_says_and_off_is_exact(family: str, method: str, fields: dict[str, Any]) -> None:
    pipe = cached(family, method, **fields)
    with block_runs(pipe) as ran:
        made = call(pipe.pipeline, P, 8)
    assert pipe.passes.kinds["skipped"]
    always = 1 if method == "fbcache" else 0
    blocks = blocks_of(pipe)
    assert len(ran) == pipe.passes.kinds["full"] * blocks + pipe.passes.kinds["skipped"] * always
    assert pipe.passes.macs < pipe.passes.full_macs
    assert torch.equal(call(pipe.pipeline, P, 8), made)
    with pipe.without_cache():
        off = call(pipe.pipeline, P, 8)
    assert pipe.passes.steps == {"full": 8}
    assert torch.equal(off, call(tiny.FAMILIES[family](), P, 8))
    assert not torch.equal(made, off)


@pytest.mark.parametrize(
    ("family", "method", "sentence"),
    [
        ("sd3", "taylorseer", "taylorseer cannot run on a SD3Transformer2DModel: it takes no cache"),
        ("pixart", "fbcache", "fbcache cannot run on a PixArtTransformer2DModel: it takes no cache"),
        ("dit", "magcache", r"magcache\.ratios: missing; diffusers knows none for a DiTTransformer2DModel"),
        ("flux_img2img", "fbcache", "cannot run in a FluxImg2ImgPipeline: it never names its guidance passes"),
        ("flux2_klein", "fbcache", "first blocks hand the text on and its last ones do not; take firstblock"),
        ("wan_two_transformers", "magcache", "counts the steps of one transformer; this pipeline has two"),
    ],
)
def test_where_diffusers_cannot_it_is_refused(family: str, method: str, sentence: str) -> None:
    with pytest.raises(BadPipeline, match=sentence):
        cached(family, method)


@pytest.mark.parametrize("method", ["fbcache", "taylorseer", "magcache"])
@pytest.mark.parametrize("family", ["dit", "pixart", "sd3", "zimage"])
def test_where_the_transformer_takes_no_cache_the_plan_refuses_it(family: str, method: str) -> None:
    recipe = Recipe.parse({"model": {"method": family, "source": "nowhere"}, "cache": {"method": method}})
    said = f"cache {method} requires that diffusers' own caches can sit on the transformer"
    assert any(said in reason for step in plan(recipe) for reason in step.reasons)
    flux = Recipe.parse({"model": {"method": "flux", "source": "nowhere"}, "cache": {"method": method}})
    assert not [reason for step in plan(flux) for reason in step.reasons]


def test_a_cache_that_skips_nothing_is_told_of() -> None:
    pipe = cached("flux", "taylorseer", warmup=4)
    call(pipe.pipeline, P, 4)
    assert pipe.passes.steps == {"full": 4}
    assert any("taylorseer skipped nothing in the last generation" in note for note in pipe.notes)
    call(pipe.pipeline, P, 8)
    assert not pipe.notes


def test_each_generation_has_its_own_number_of_steps() -> None:
    pipe = cached("flux", "magcache", ratios=RATIOS, retention=0.5)
    for steps in (8, 4):
        call(pipe.pipeline, P, steps)
        kinds = list(pipe.passes.by_step.values())
        assert kinds[: steps // 2] == ["full"] * (steps // 2)
        assert "skipped" in kinds


def test_a_picture_of_fbcache_depends_on_its_neighbours_and_the_report_says_so() -> None:
    pipe = cached("flux", "fbcache", threshold=0.6)
    assert pipe.notes == ["fbcache decides for the whole batch: a picture depends on its neighbours"]


def test_a_pipeline_with_a_cache_of_diffusers_on_it_is_refused() -> None:
    from diffusers.hooks.first_block_cache import FirstBlockCacheConfig

    pipeline = tiny.flux()
    pipeline.transformer.enable_cache(FirstBlockCacheConfig())
    with pytest.raises(BadPipeline, match=r"a cache of diffusers is switched on; call transformer\.disable_cache"):
        Pipe(pipeline)
