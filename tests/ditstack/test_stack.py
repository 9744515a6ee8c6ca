"""apply and load: on the user's own pipelines, twice, with a cache that can be switched off exactly."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from ditstack import BadPipeline, Recipe, StaleFactors, apply, load
from ditstack.caching.features import FeatureCache
from ditstack.errors import BadFile
from ditstack.factors import Factors
from ditstack.testing import tiny_pipelines as tiny
from ditstack.testing.tiny_pipelines import call

P = ["a red circle", "a blue star"]


def recipe(model: Path | None = None, **cache: Any) -> Recipe:
    data = {
        "model": {"method": "flux", "device": "cpu", **({"source": str(model)} if model else {})},
        "cache": {"method": "svdcache", "interval": 2, **cache},
        "sampler": {"steps": 6, "guidance": 3.5, "size": "16x16"},
        "calibration": ["a red star", "a blue ring", "a green square", "a white circle"],
    }
    return Recipe.parse(data, "mine")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flux")
    tiny.flux().save_pretrained(folder)
    return folder


def test_apply_works_on_two_pipelines_of_the_users_own_and_off_is_exact() -> None:
    plain = call(tiny.flux(), P, 6)
    stacks = [apply(tiny.flux(), recipe()) for _ in range(2)]
    outs = [call(stack.pipeline, P, 6) for stack in stacks]
    assert torch.equal(*outs)
    assert not torch.equal(outs[0], plain)
    with stacks[0].off():
        assert torch.equal(call(stacks[0].pipeline, P, 6), plain)
        assert torch.equal(call(stacks[1].pipeline, P, 6), outs[1])
    assert torch.equal(call(stacks[0].pipeline, P, 6), outs[0])
    stacks[1].off()
    assert torch.equal(call(stacks[1].pipeline, P, 6), plain)
    stacks[1].on()
    assert torch.equal(call(stacks[1].pipeline, P, 6), outs[1])


def test_a_report_says_what_the_last_generation_did() -> None:
    stack = apply(tiny.flux(), recipe())
    call(stack.pipeline, P, 6)
    report = stack.report()
    assert report.steps == {"full": 3, "forecast": 3}
    assert 0.5 < report.macs_ratio < 0.6
    assert report.seconds["denoise"] > 0
    assert {"torch", "diffusers"} <= report.versions.keys()
    assert report.resolved["cache"]["interval"] == 2


def test_a_pipeline_of_another_family_is_refused_and_untouched() -> None:
    pipeline = tiny.pixart()
    with pytest.raises(BadPipeline, match="the recipe is for"):
        apply(pipeline, recipe())


def test_the_trunk_cache_keeps_two_features_a_branch() -> None:
    stack = apply(tiny.flux(), recipe())
    store, held = FeatureCache.on(stack.pipe), []
    stack.pipe.clock.on_tick.append(lambda *_: held.append(store.memories.copy()))
    call(stack.pipeline, P, 6, true_cfg_scale=3.0)
    most = max(held, key=lambda memories: sum(len(one.tensors()) for one in memories.values()))
    assert len(most) == 2
    assert all(len(one.tensors()) == 2 for one in most.values())
    assert not store.memories


def test_fitted_gains_are_calibrated_once_and_loaded_after(model: Path, tmp_path: Path) -> None:
    fitted = recipe(model, predictor="fitted", calibrate="auto", factors=str(tmp_path / "f.safetensors"))
    told: list[str] = []
    first = load(fitted, told.append)
    assert any("round 1" in line for line in told)
    written = (tmp_path / "f.safetensors").read_bytes()
    told.clear()
    second = load(fitted, told.append)
    assert told == []
    assert (tmp_path / "f.safetensors").read_bytes() == written
    assert torch.equal(first.sample(P).images, second.sample(P).images)


@pytest.mark.parametrize(
    ("change", "named"),
    [("sampler.steps=8", "sampler.steps"), ("cache.interval=3", "cache"), ("quantize=torchao", "quantize")],
)
def test_factors_fitted_to_something_else_are_refused_by_name(
    model: Path, tmp_path: Path, change: str, named: str
) -> None:
    file = str(tmp_path / "f.safetensors")
    load(recipe(model, predictor="fitted", calibrate="auto", factors=file))
    path = tmp_path / "mine.yaml"
    path.write_text(recipe(model, predictor="fitted", factors=file).to_yaml())
    load(path)
    with pytest.raises(StaleFactors, match=f"another {named};"):
        load(Recipe.read(path, [change]))
    load(Recipe.read(path, [change, "cache.calibrate=auto"]))


def test_missing_factors_are_asked_for_where_nothing_may_be_fitted(model: Path, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="there is no factors file"):
        load(recipe(model, predictor="fitted", factors=str(tmp_path / "none.safetensors")))


def test_a_scheduler_that_diffusers_does_not_have_is_refused(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(recipe(model).to_yaml())
    with pytest.raises(BadPipeline, match="diffusers has no scheduler 'EulerScheduler'"):
        load(Recipe.read(path, ["sampler.scheduler=EulerScheduler"]))


def test_an_offline_basis_is_fitted_where_a_subspace_asks_for_it_and_used(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "f.safetensors"
    offline = load(recipe(model, rank=4, calibrate="auto", factors=str(file)))
    basis = Factors.load(file).tensors["transformer.basis"]
    torch.testing.assert_close(basis.mT @ basis, torch.eye(4))
    again, online = load(recipe(model, rank=4, factors=str(file))), load(recipe(model, rank=4))
    made = [stack.sample(P).latents for stack in (offline, again, online)]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_two_threads_on_one_stack_get_each_its_own_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first thread reads what its call left only when the second could have called, if it may."""
    from ditstack.assembly import sample as sampling

    stack = apply(tiny.flux(), recipe())
    alone = {prompt: stack.sample([prompt], [3]).latents for prompt in P}
    inside, other, made = threading.Event(), threading.Event(), dict[str, torch.Tensor]()
    now, looks = sampling.now, dict[int, int]()

    def slow() -> float:
        thread = threading.get_ident()
        looks[thread] = looks.get(thread, 0) + 1
        if thread == first.ident and looks[thread] == 2:  # its call has ended
            inside.set()
            other.wait(1)
        return now()

    def make(prompt: str) -> None:
        made[prompt] = stack.sample([prompt], [3]).latents
        other.set() if prompt == P[1] else None

    monkeypatch.setattr(sampling, "now", slow)
    first, second = (threading.Thread(target=make, args=(prompt,)) for prompt in P)
    first.start()
    inside.wait(60)
    second.start()
    first.join()
    second.join()
    assert all(torch.equal(made[prompt], alone[prompt]) for prompt in P)
