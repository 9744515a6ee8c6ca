"""What a family is asked for, and what it refuses, in sentences."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.flux.pipeline_flux_img2img import FluxImg2ImgPipeline

from ditstack import apply, load
from ditstack.assembly.sample import sample
from ditstack.errors import BadFile, BadPipeline, RecipeError
from ditstack.paper import image
from ditstack.recipe.memory.sizes import sizes_of
from ditstack.recipe.recipe import Recipe, Sampler
from ditstack.testing import tiny_pipelines as tiny
from ditstack_adapters.model.auto import Auto
from ditstack_adapters.model.dit import DiT
from ditstack_adapters.model.flux import Flux
from ditstack_adapters.model.sd3 import SD3

HOW = Sampler(steps=2)


def test_a_pipeline_of_another_family_is_refused() -> None:
    with pytest.raises(BadPipeline, match="for a SD3Transformer2DModel; the FluxPipeline runs a Flux"):
        SD3().wrap(tiny.flux())


def test_dit_takes_numbers_and_names_of_classes() -> None:
    pipe = DiT().wrap(tiny.dit())
    pipe.pipeline.labels = {"white shark": 2}
    named, numbered = sample(pipe, ["white shark"], [0], HOW), sample(pipe, [" 2"], [0], HOW)
    assert torch.equal(named.images, numbered.images)
    with pytest.raises(BadPipeline, match=r"found the prompt 'white shirk'; .* did you mean 'white shark'\?"):
        sample(pipe, ["white shirk"], [0], HOW)


def test_what_a_pipeline_cannot_be_told_is_refused() -> None:
    pipe = DiT().wrap(tiny.dit())
    with pytest.raises(BadPipeline, match="a DiTPipeline takes no negative_prompt, width, height"):
        sample(pipe, ["1"], [0], Sampler(steps=2, size="32x32"), "blurred")


def test_flux_reads_its_picture_from_the_recipe_and_noises_it_with_each_items_own_seed(tmp_path: Path) -> None:
    image(tiny.PICTURE[0]).save(tmp_path / "start.png")
    model = Flux(task="img2img", image=str(tmp_path / "start.png"), strength=0.5)
    pipe = model.wrap(tiny.flux_img2img())
    how = Sampler(steps=4, size="16x16")
    together = sample(pipe, ["a", "b"], [3, 4], how, extra={"max_sequence_length": 64}).latents
    alone = sample(pipe, ["b"], [4], how, extra={"max_sequence_length": 64}).latents
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=0)
    missing = Flux(task="img2img", image=str(tmp_path / "end.png")).wrap(tiny.flux_img2img())
    with pytest.raises(BadFile, match=r"model\.image: there is no file"):
        sample(missing, ["a"], [0], how)


@pytest.mark.parametrize(("family", "method"), [("wan_5b_i2v", "wan"), ("qwen_image_edit", "qwenimage")])
def test_one_picture_of_a_recipe_serves_every_prompt_of_a_call(family: str, method: str, tmp_path: Path) -> None:
    image(tiny.PICTURE[0]).save(tmp_path / "start.png")
    recipe = Recipe.parse({"model": {"method": method, "image": str(tmp_path / "start.png"), "device": "cpu"}})
    pipe = recipe.model.wrap(tiny.FAMILIES[family]())
    extra = {**tiny._of_class(type(pipe.pipeline).__name__, 1), "output_type": "latent"}
    del extra["image"]
    how = Sampler(steps=2)
    together = sample(pipe, ["a fox", "b"], [3, 4], how, extra=extra).latents
    alone = sample(pipe, ["b"], [4], how, extra=extra).latents
    assert (together[1:] - alone).abs().max() <= 1e-5 * alone.abs().max().clamp_min(1)
    assert pipe.fps == (24 if method == "wan" else 0)


def test_a_checkpoint_of_another_size_than_the_known_one_has_no_sizes() -> None:
    for name in ("wan-5b", "flux2", "zimage", "hunyuanvideo15", "ltx2"):
        assert sizes_of(Recipe.read(name).model) is None
    known = sizes_of(Recipe.read("wan-i2v").model)
    assert known is not None
    assert "Wan2.2-I2V-A14B-Diffusers is not on this computer" in known.told


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"task": "text", "image": "x.png"}, "task text takes no image"),
        ({"task": "kontext", "mask": "x.png"}, "task kontext takes no mask"),
        ({"task": "fill", "strength": 0.5}, "task fill takes no strength"),
    ],
)
def test_flux_refuses_pictures_that_its_task_has_no_use_for(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        Recipe.parse({"model": {"method": "flux", **fields}})


@pytest.mark.parametrize("task", ["text", "img2img", "fill", "kontext"])
def test_each_task_of_flux_has_its_loader(task: Any) -> None:
    assert Flux(task=task).loader() == type(tiny.FAMILIES["flux" if task == "text" else f"flux_{task}"]()).__name__


def test_auto_says_why_it_cannot_look_at_a_pipeline() -> None:
    with pytest.raises(BadPipeline, match=r"a trial call of a FluxPipeline fails: .*colour.*model\.arguments"):
        Auto(arguments={"colour": "red"}).wrap(tiny.flux())


def test_auto_refuses_a_transformer_without_blocks_and_one_that_runs_a_block_twice() -> None:
    looped, bare = tiny.sana(), tiny.sana()
    looped.transformer.transformer_blocks.append(looped.transformer.transformer_blocks[0])
    auto = Auto(arguments=tiny._of_class("SanaPipeline", 1))
    with pytest.raises(BadPipeline, match="runs a block twice in one forward"):
        auto.wrap(looped)
    bare.transformer.transformer_blocks = torch.nn.ModuleList()
    with pytest.raises(BadPipeline, match="SanaPipeline runs no list of blocks"):
        auto.wrap(bare)


@pytest.mark.parametrize(
    ("family", "method", "fields"),
    [
        ("dit", "dit", {}),
        ("wan_two_transformers", "wan", {}),
        ("pixart_sigma", "pixart", {}),
        ("flux", "flux", {"task": "img2img"}),
        ("sana", "auto", {"arguments": {"use_resolution_binning": False, "complex_human_instruction": None}}),
    ],
)
def test_a_family_is_loaded_from_a_folder(family: str, method: str, fields: dict[str, Any], tmp_path: Path) -> None:
    pipeline = tiny.FAMILIES[family]()
    pipeline.save_pretrained(tmp_path)
    if method == "flux":
        pipeline = FluxImg2ImgPipeline(**pipeline.components)
    cache = {"method": "svdcache", "interval": 2}
    model = {"method": method, "source": str(tmp_path), "device": "cpu", **fields}
    recipe = Recipe.parse({"model": model, "cache": cache, "sampler": {"steps": 4}})
    extra = tiny._of_class(type(pipeline).__name__, 1)
    made = [
        sample(stack.pipe, ["7"], [0], recipe.sampler, extra=extra) for stack in (load(recipe), apply(pipeline, recipe))
    ]
    torch.testing.assert_close(made[0].images, made[1].images, atol=1e-4, rtol=0)
    assert made[0].steps["forecast"]
