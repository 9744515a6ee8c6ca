"""Factors serve only what they were fitted to: everything that they depend on is noticed, by what was and what is."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ditstack import apply
from ditstack.assembly.build import build
from ditstack.assembly.sample import warm_up
from ditstack.calibration.calibrate import calibrate, factors_file
from ditstack.errors import BadFile, DitstackError, StaleFactors
from ditstack.factors import Factors
from ditstack.recipe.recipe import Recipe
from ditstack.stack import Stack
from ditstack.testing import tiny_pipelines as tiny

PROMPTS = ["a red star", "a blue ring"]


def recipe(file: Path, **changes: Any) -> Recipe:
    data: dict[str, Any] = {
        "model": {"method": "flux", "device": "cpu"},
        "cache": {"method": "icc", "interval": 2, "rank": 0.25, "factors": str(file)},
        "sampler": {"steps": 3, "size": "16x16", "guidance": 3.5},
        "calibration": PROMPTS,
    }
    return Recipe.parse({**data, **changes}, "r")


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ditstack_adapters.model.flux.Flux.load", lambda self, **_: tiny.flux())


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A factors file of ICC on a tiny FLUX."""
    file = tmp_path_factory.mktemp("factors") / "f.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ditstack_adapters.model.flux.Flux.load", lambda self, **_: tiny.flux())
        calibrate(recipe(file), PROMPTS, None, lambda line: None)
    return file


def shifted(pipeline: Any) -> None:
    pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, shift=1.5)


def another_encoder(pipeline: Any) -> None:
    with torch.no_grad():
        next(pipeline.text_encoder_2.parameters()).mul_(2)


@pytest.mark.parametrize(
    ("change", "said"),
    [(shifted, r"scheduler: shift was 1.0, is 1.5"), (another_encoder, r"text_encoder_2: was \w+, is \w+")],
)
def test_another_scheduler_or_text_encoder_is_refused(fitted: Path, change: Callable[[Any], None], said: str) -> None:
    apply(tiny.flux(), recipe(fitted))
    change(pipeline := tiny.flux())
    with pytest.raises(StaleFactors, match=said):
        apply(pipeline, recipe(fitted))


def test_other_prompts_and_another_torch_are_refused_by_name(fitted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StaleFactors, match="another calibration;"):
        apply(tiny.flux(), recipe(fitted, calibration=["a pink square", "a ring"]))
    monkeypatch.setattr(torch, "__version__", "1.0.0+cpu")
    with pytest.raises(StaleFactors, match=r"another torch;(?s:.*)torch: was .*, is 1\.0\.0"):
        apply(tiny.flux(), recipe(fitted))


def test_the_version_of_the_quantizer_is_a_condition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounded = recipe(tmp_path / "f", quantize={"method": "torchao", "scheme": "int8"})
    calibrate(rounded, PROMPTS, None, lambda line: None)
    apply(tiny.flux(), rounded)
    monkeypatch.setattr("ditstack.calibration.conditions.versions", lambda: {"torchao": "99"})
    with pytest.raises(StaleFactors, match=r"quantize: torchao was .*, is 99"):
        apply(tiny.flux(), rounded)


def test_prompts_given_by_hand_serve_whatever_the_recipe_names(tmp_path: Path) -> None:
    calibrate(recipe(tmp_path / "f"), ["a pink square", "a ring"], None, lambda line: None)
    apply(tiny.flux(), recipe(tmp_path / "f"))
    apply(tiny.flux(), recipe(tmp_path / "f", calibration=[]))


Tensors = dict[str, torch.Tensor]


def renamed(tensors: Tensors) -> Tensors:
    return {name.replace("attn.to_out.0", "attn.to_in.0"): one for name, one in tensors.items()}


def without(tensors: Tensors) -> Tensors:
    gone = next(name for name in tensors if name.endswith(".up"))
    return {name: one for name, one in tensors.items() if name != gone}


def elsewhere(tensors: Tensors) -> Tensors:
    return {name.replace("transformer_blocks.0", "transformer_blocks.7"): one for name, one in tensors.items()}


def transposed(tensors: Tensors) -> Tensors:
    return {name: one.mT.contiguous() for name, one in tensors.items()}


def whole_numbers(tensors: Tensors) -> Tensors:
    return {name: one.int() for name, one in tensors.items()}


@pytest.mark.parametrize("change", [renamed, without, elsewhere, transposed, whole_numbers])
@pytest.mark.parametrize("stated", [True, False], ids=["stated", "unstated"])
def test_tensors_that_were_renamed_lost_or_reshaped_are_refused(
    fitted: Path, tmp_path: Path, change: Callable[[Tensors], Tensors], stated: bool
) -> None:
    """By what the file states that it holds, and where it states nothing, by what the method can serve with."""
    whole = Factors.load(fitted)
    conditions = {name: one for name, one in whole.conditions.items() if stated or name != "tensors"}
    replace(whole, tensors=change(whole.tensors), conditions=conditions).save(tmp_path / "f.safetensors")
    with pytest.raises(BadFile, match="other tensors than were fitted" if stated else "do not fit this pipeline"):
        apply(tiny.flux(), recipe(tmp_path / "f.safetensors"))


def sampled(stack: Stack, **changes: Any) -> list[str]:
    """The notes of a picture made with another sampler."""
    stack.recipe.sampler = stack.recipe.sampler.model_copy(update=changes)
    return stack.report(stack.sample(["a"])).notes


def test_a_call_that_leaves_what_factors_were_fitted_at_says_so(fitted: Path) -> None:
    stack = apply(tiny.flux(), recipe(fitted))
    assert not any("fitted at" in note for note in sampled(stack))
    assert "factors were fitted at steps 3; here it is 4" in sampled(stack, steps=4)
    assert "factors were fitted at guidance 3.5; here it is 2.0" in sampled(stack, guidance=2.0)
    assert not any("fitted at" in note for note in sampled(stack, steps=3, guidance=3.5))


def fitted_at(stack: Stack, **arguments: Any) -> list[str]:
    """The notes of a call of the pipeline itself."""
    tiny.call(stack.pipeline, ["a"], **{"steps": 3, "guidance_scale": 3.5, **arguments})
    return [note.removeprefix("factors were fitted at ") for note in stack.report().notes if "fitted at" in note]


def test_a_call_of_the_pipeline_itself_says_so_too(fitted: Path, caplog: pytest.LogCaptureFixture) -> None:
    stack = apply(tiny.flux(), recipe(fitted))
    assert fitted_at(stack) == []
    assert fitted_at(stack, guidance_scale=3.5, sigmas=[1.0, 0.6, 0.3]) == []
    assert fitted_at(stack, steps=4) == ["steps 3; here it is 4"]
    assert fitted_at(stack, sigmas=[1.0, 0.5]) == ["steps 3; here it is 2"]
    assert fitted_at(stack, guidance_scale=2) == ["guidance 3.5; here it is 2"]
    assert fitted_at(stack, width=32) == ["size 16x16; here it is 32x16"]
    assert fitted_at(stack) == []
    assert fitted_at(stack, steps=4) == ["steps 3; here it is 4"]
    told = [record.message for record in caplog.records]
    assert told.count("factors were fitted at steps 3; here it is 4") == 1
    assert len(stack.departed) == 4


def test_what_the_pipeline_does_by_itself_is_no_departure(tmp_path: Path) -> None:
    own = recipe(tmp_path / "f", sampler={"steps": 3, "size": "16x16"})  # guided at the pipeline's own scale
    calibrate(own, PROMPTS, None, lambda line: None)
    stack = apply(pipeline := tiny.flux(), own)
    scale = inspect.signature(type(pipeline).__call__).parameters["guidance_scale"].default
    assert fitted_at(stack, guidance_scale=scale) == []
    assert fitted_at(stack, guidance_scale=2.0) == [f"guidance {scale}; here it is 2.0"]


def test_a_loop_of_ones_own_says_how_many_steps_it_took(fitted: Path) -> None:
    stack = apply(pipeline := tiny.flux(), recipe(fitted))
    for steps in (3, 5):
        with stack.generation():
            pipeline.scheduler.set_timesteps(steps, mu=1.0)
            pipeline.transformer(
                hidden_states=torch.zeros(1, 4, pipeline.transformer.config.in_channels),
                timestep=torch.ones(1), guidance=torch.ones(1),
                encoder_hidden_states=torch.zeros(1, 2, pipeline.transformer.config.joint_attention_dim),
                pooled_projections=torch.zeros(1, pipeline.transformer.config.pooled_projection_dim),
                txt_ids=torch.zeros(2, 3), img_ids=torch.zeros(4, 3),
            )  # fmt: skip
        assert [note for note in stack.notes if "fitted at" in note] == (
            [] if steps == 3 else ["factors were fitted at steps 3; here it is 5"]
        )


def test_a_warm_up_is_no_call_of_the_users(fitted: Path) -> None:
    stack = apply(tiny.flux(), recipe(fitted))
    warm_up(stack.pipe, ["a"], stack.recipe.sampler)
    assert stack.departed == []


def test_a_call_is_refused_where_the_method_says_that_it_matters(tmp_path: Path) -> None:
    cache = {"method": "svdcache", "interval": 2, "predictor": "fitted", "factors": str(tmp_path / "f")}
    gains = recipe(tmp_path / "f", cache=cache, sampler={"steps": 6, "size": "16x16"})
    calibrate(gains, PROMPTS, None, lambda line: None)
    stack = apply(tiny.flux(), gains)
    with pytest.raises(StaleFactors, match="they serve no other steps"):
        sampled(stack, steps=5)
    with pytest.raises(StaleFactors, match="fitted at steps 6; here it is 5: they serve no other steps"):
        tiny.call(stack.pipeline, ["a"], steps=5)
    assert fitted_at(stack, steps=6) == []


def test_no_file_is_replaced_that_is_no_factors_file(tmp_path: Path) -> None:
    mine, folder = tmp_path / "mine.txt", tmp_path / "folder"
    mine.write_text("keep me")
    folder.mkdir()
    (tmp_path / "link").symlink_to(mine)
    for path in (mine, folder, tmp_path / "link"):
        with pytest.raises(BadFile, match="name another"):
            calibrate(recipe(tmp_path / "f"), PROMPTS, path, lambda line: None)
    assert mine.read_text() == "keep me"


def test_a_torn_partial_file_is_set_aside_with_a_sentence(tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "f.partial").write_bytes(b"\x08\0\0")
    calibrate(recipe(tmp_path / "f"), PROMPTS, None, told.append)
    assert "the progress of an earlier calibration is damaged: it is moved to" in told[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "f.partial.torn"]


def test_a_user_without_a_home_is_told() -> None:
    with pytest.raises(DitstackError, match="there is no user of that name"):
        factors_file(recipe(Path("~nobody-of-this-name/f")))


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:-9] + bytes(9)], ids=["cut", "changed"])
def test_damaged_factors_are_set_aside_and_fitted_anew_where_the_recipe_fits_by_itself(
    fitted: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    file = tmp_path / "f.safetensors"
    file.write_bytes(damaged := damage(fitted.read_bytes()))
    with pytest.raises(BadFile, match="is not a whole factors file"):
        apply(tiny.flux(), recipe(file))
    auto = recipe(file, cache={**recipe(file).resolved()["cache"], "calibrate": "auto"})
    told: list[str] = []
    stack = apply(tiny.flux(), auto, told.append)
    note = next(line for line in told if "set aside as f.safetensors.damaged" in line)
    assert note in stack.report(stack.sample(["a"])).notes
    assert (tmp_path / "f.safetensors.damaged").read_bytes() == damaged
    assert Factors.load(file).conditions == Factors.load(fitted).conditions
    apply(tiny.flux(), auto, told.append)
    assert told.count(note) == 1


def test_a_file_of_somebody_else_is_never_set_aside(tmp_path: Path) -> None:
    mine = tmp_path / "notes.safetensors"
    cache = {"method": "icc", "interval": 2, "rank": 0.25, "factors": str(mine), "calibrate": "auto"}
    for content in (b"keep me", b"", b"\x08\0\0\0\0\0\0\0{}      "):
        mine.write_bytes(content)
        with pytest.raises(BadFile, match="is not a whole factors file"):
            apply(tiny.flux(), recipe(mine, cache=cache))
        assert mine.read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["notes.safetensors"]


def test_another_vae_makes_what_was_judged_by_pictures_stale() -> None:
    from ditstack.calibration.certificate import conditions_of

    def found() -> dict[str, str]:
        return conditions_of(plain, build(plain, pipeline), None)

    plain = Recipe.parse({"model": {"method": "flux", "device": "cpu"}, "sampler": {"steps": 3}}, "r")
    pipeline = tiny.flux()
    before = found()
    with torch.no_grad():
        next(pipeline.vae.decoder.parameters()).mul_(2)
    assert [name for name, one in found().items() if before[name] != one] == ["vae"]
