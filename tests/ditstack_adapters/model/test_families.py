"""Every model family, on tiny pipelines of its real classes: the cache fires, counts, and leaves no trace."""

from typing import Any

import diffusers
import pytest
import torch

from counting import block_runs, blocks_of
from ditstack.pipeline.hooks import put_beneath
from ditstack.pipeline.pipe import Pipe
from ditstack.recipe.adapter import find
from ditstack.recipe.model import Model
from ditstack.testing import tiny_pipelines as tiny
from families import MODELS, PROMPTS, SEED, STEPS, make, stand, steps_of

TRUNKS = {
    "auraflow": {"joint_transformer_blocks": 2, "single_transformer_blocks": 3},  # text and picture are joined between
    "chroma": {"transformer_blocks": 2, "single_transformer_blocks": 3},
    "sana": {"transformer_blocks": 3},
    "lumina2": {"layers": 3},
    "z_image": {"layers": 3},
    "flux": {"transformer_blocks": 2, "single_transformer_blocks": 3},
}


SVDCACHE = {"method": "svdcache", "interval": 2}


@pytest.mark.parametrize("family", MODELS)
def test_blocks_are_skipped_and_counted_and_off_is_the_plain_pipeline(family: str) -> None:
    stack = stand(family, cache=SVDCACHE)
    with block_runs(stack.pipe) as ran:
        made = make(stack, family)
    blocks = blocks_of(stack.pipe) // len(stack.pipe.transformers)
    assert made.steps == steps_of(family, "forecast")
    assert len(ran) == stack.pipe.passes.kinds["full"] * blocks
    assert stack.report(made).macs_ratio < 0.85
    assert torch.equal(make(stack, family).images, made.images)
    alone = make(stack, family, slice(1))
    gap = (alone.latents - made.latents[:1]).abs().max()
    assert gap <= 1e-5 * made.latents.abs().max().clamp_min(1)
    with stack.off():
        off = make(stack, family)
    assert not torch.equal(off.images, made.images)
    assert torch.equal(off.images, tiny.call(tiny.FAMILIES[family](), PROMPTS, STEPS, SEED).cpu())
    assert torch.equal(make(stack, family).images, made.images)


@pytest.mark.parametrize("family", MODELS)
@torch.inference_mode()
def test_a_skipped_pass_with_the_inputs_of_a_full_one_returns_what_that_returned(family: str) -> None:
    stack = stand(family, cache={"method": "reuse", "interval": 2})
    calls: dict[Any, Any] = {}
    outs: dict[Any, torch.Tensor] = {}
    passes: list[str] = []
    gaps: list[float] = []

    def repeat(module: torch.nn.Module, args: Any, kwargs: Any) -> Any:
        key = (id(module), len(passes))
        passes.append("now")
        return calls.setdefault(key, (args, kwargs))

    def compare(module: torch.nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        key = (id(module), len(passes))
        out = out[0] if isinstance(out, tuple) else out.sample
        out = torch.stack(list(out)) if isinstance(out, list) else out
        gaps.append(float((out - outs.setdefault(key, out)).norm() / out.norm()))

    for transformer in stack.pipe.transformers.values():
        transformer.register_forward_pre_hook(repeat, with_kwargs=True)
        transformer.register_forward_hook(compare, with_kwargs=True)
    stack.pipe.clock.on_tick.append(lambda done, steps: passes.clear())
    make(stack, family)
    assert stack.pipe.passes.kinds["reused"]
    assert len(gaps) > len(outs)
    assert max(gaps) < 1e-5


@pytest.mark.parametrize("family", MODELS)
def test_branches_of_blocks_are_skipped_too(family: str) -> None:
    stack = stand(family, cache={**SVDCACHE, "granularity": "block"})
    with block_runs(stack.pipe) as ran:
        made = make(stack, family)
    assert made.steps == steps_of(family, "forecast")
    assert len(ran) == stack.pipe.passes.kinds["full"] * (blocks_of(stack.pipe) // len(stack.pipe.transformers))
    alone = make(stack, family, slice(1))
    gap = (alone.latents - made.latents[:1]).abs().max()
    assert gap <= 1e-5 * made.latents.abs().max().clamp_min(1)


@pytest.mark.parametrize(
    "family", [name for name in MODELS if getattr(find("model", MODELS[name]), "conditioning_modules", ())]
)
def test_what_only_feeds_the_blocks_rests_with_them_and_changes_nothing(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = stand(family, cache=SVDCACHE)
    paths, ran = stack.pipe.conditioning_modules, []
    for transformer in stack.pipe.transformers.values():
        for path in paths:
            put_beneath(
                transformer.get_submodule(path), lambda run: lambda *args, **named: ran.append(1) or run(*args, **named)
            )
    made = make(stack, family)
    assert len(ran) == stack.pipe.passes.kinds["full"] * len(paths) > 0
    monkeypatch.setattr(
        Pipe, "conditioning_modules", property(lambda pipe: (), lambda pipe, given: None), raising=False
    )
    assert torch.equal(make(stand(family, cache=SVDCACHE), family).images, made.images)


@pytest.mark.parametrize("family", TRUNKS)
def test_auto_finds_the_trunks_and_says_so(family: str) -> None:
    pipe = stand(family, "auto", cache=SVDCACHE).pipe
    lists = [block.name.rpartition(".")[0] for block in pipe.blocks["transformer"]]
    assert {name: lists.count(name) for name in lists} == TRUNKS[family]
    joined = family == "flux"
    assert len(pipe.trunks) == (1 if joined else len(TRUNKS[family]))
    (note,) = pipe.notes
    assert all(name in note for name in TRUNKS[family])
    assert ("left alone: context_refiner, noise_refiner" in note) == (family in ("lumina2", "z_image"))


def test_auto_on_a_family_with_a_file_of_its_own_makes_the_same_pictures() -> None:
    own, auto = stand("flux", cache=SVDCACHE), stand("flux", "auto", cache=SVDCACHE)
    assert torch.equal(make(own, "flux").images, make(auto, "flux").images)
    both = stand("wan_two_transformers", "auto", cache=SVDCACHE)
    assert list(both.pipe.trunks) == ["transformer", "transformer_2"]
    own = stand("wan_two_transformers", cache=SVDCACHE)
    assert torch.equal(make(both, "wan").images, make(own, "wan").images)


@pytest.mark.parametrize(
    ("family", "passes"), [("qwen_image", 2), ("pixart", 1), ("wan", 2), ("chroma", 2), ("flux", 1)]
)
def test_guidance_is_given_in_the_familys_own_words(family: str, passes: int) -> None:
    stack = stand(family, cache=SVDCACHE)
    weak, strong = make(stack, family, guidance=2.0), make(stack, family, guidance=6.0)
    assert stack.pipe.passes.kinds == {"full": 3 * passes, "forecast": 3 * passes}
    assert not torch.allclose(weak.latents, strong.latents, atol=1e-3)


@pytest.mark.parametrize(
    "family", ["wan", "wan_5b", "wan_i2v", "hunyuan_video", "hunyuan_video_15", "ltx", "ltx2", "cogvideo"]
)
def test_videos_are_frames_with_a_pace(family: str) -> None:
    made = make(stand(family, cache=SVDCACHE), family)
    assert made.images.ndim == 5
    assert made.images.shape[2] == 3
    assert made.fps > 0


def test_z_image_whose_guidance_ends_early_never_forecasts_from_another_batch() -> None:
    stack = stand("z_image", cache=SVDCACHE)
    prompts = list(PROMPTS)
    made = tiny.call(stack.pipeline, prompts, 8, cfg_truncation=0.5)
    kinds = list(stack.pipe.passes.by_step.values())
    assert prompts == PROMPTS
    assert kinds.count("full") > 4  # its first unguided step is full, whatever the schedule says
    with stack.off():
        off = tiny.call(stack.pipeline, prompts, 8, cfg_truncation=0.5)
    assert torch.equal(off, tiny.call(tiny.z_image(), prompts, 8, cfg_truncation=0.5))
    assert not torch.equal(made, off)


@pytest.mark.parametrize("method", sorted({*MODELS.values()} - {"auto"}))
def test_a_family_says_whether_diffusers_gives_its_transformer_a_cache(method: str) -> None:
    kind = find("model", method)
    assert issubclass(kind, Model)
    assert kind.takes_caches == hasattr(getattr(diffusers, kind.transformer_class), "enable_cache")
