"""A LoRA that cannot be used, or that would change nothing, is refused in one sentence."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ditstack import apply, load
from ditstack.errors import BadFile, BadPipeline, Incompatible, RecipeError
from ditstack.recipe.recipe import Recipe
from ditstack.testing import tiny_pipelines as tiny
from ditstack.testing.tiny_pipelines import call
from loras import MODULES, STEPS, P, Write, recipe


def test_one_of_zeros_is_refused_before_the_model_is_loaded(write: Write) -> None:
    with pytest.raises(BadFile, match="is all zeros: it changes nothing"):
        load(recipe(write(size=0.0)))


def test_one_for_other_module_names_is_refused(write: Write) -> None:
    others = (MODULES[0], "layers.0.to_q", "layers.1.to_q")
    with pytest.raises(BadFile, match=r"2 of the 3 modules .* not in the Flux\w+, such as 'layers.0.to_q'"):
        apply(tiny.flux(), recipe(write(modules=others)))
    tensors = load_file(write())
    save_file({f"text_encoder.{name}": one for name, one in tensors.items()}, source := write("text.safetensors"))
    with pytest.raises(BadFile, match=r"text\.safetensors holds nothing for the transformer"):
        apply(tiny.flux(), recipe(source))


def test_a_part_that_is_not_here_is_told(write: Write) -> None:
    stack = apply(tiny.flux(), recipe(write(modules=(*MODULES, "layers.0.to_q"))))
    assert any("1 modules of one.safetensors are not here: layers.0.to_q" in note for note in stack.report().notes)


def test_one_of_another_width_is_refused(write: Write) -> None:
    with pytest.raises(BadFile, match=r"of another width: .* reads 64 numbers, the linear 128"):
        apply(tiny.flux(), recipe(write(width=64)))


def test_one_that_cancels_itself_is_refused_and_leaves_the_pipeline_as_it_was(write: Write) -> None:
    source, pipeline = write(), tiny.flux()
    with pytest.raises(BadPipeline, match="does not move the transformer's output"):
        apply(pipeline, recipe(source, also=[{"source": source, "scale": -1.0}]))
    assert torch.equal(call(pipeline, P, STEPS), call(tiny.flux(), P, STEPS))


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("/no/such/file", "there is no file or folder /no/such/file"),
        ("embedded:tiny-9step-lora", r"no LoRA embedded:tiny-9step-lora .*; did you mean 'embedded:tiny-4step-lora'"),
        ("torn.safetensors", "torn.safetensors is not a whole .safetensors file"),
        ("model.safetensors", "holds no LoRA; wanted names with lora_A and lora_B, found 'proj.weight'"),
        ("two", "two holds 2 .safetensors files: a.safetensors, b.safetensors; name one with weight_name"),
        ("none", "none holds 0 .safetensors files"),
        ("someone/lora", "pytorch_lora_weights.safetensors of someone/lora cannot be fetched from the hub"),
    ],
)
def test_a_source_that_cannot_be_used_is_refused_in_a_sentence(
    source: str, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    save_file({"proj.weight": torch.ones(2, 2)}, "model.safetensors")
    Path("torn.safetensors").write_bytes(Path("model.safetensors").read_bytes()[:-3])
    for folder in ("two", "none"):
        Path(folder).mkdir()
    for name in ("a", "b"):
        Path(f"two/{name}.safetensors").touch()
    with pytest.raises(BadFile, match=wanted) as refused:
        load(recipe(source))
    assert "\n" not in str(refused.value)


def test_a_file_is_picked_from_a_folder_by_its_name(write: Write, tmp_path: Path) -> None:
    write("a.safetensors")
    write("b.safetensors", size=0.0)
    assert apply(tiny.flux(), recipe(str(tmp_path), weight_name="a.safetensors")).report().notes
    with pytest.raises(BadFile, match=r"holds no c\.safetensors"):
        apply(tiny.flux(), recipe(str(tmp_path), weight_name="c.safetensors"))


def test_a_pipeline_that_carries_loras_already_is_refused(write: Write) -> None:
    pipeline = tiny.flux()
    pipeline.load_lora_weights(write(), adapter_name="mine")
    with pytest.raises(BadPipeline, match=r"carries LoRAs already \(mine\)"):
        apply(pipeline, recipe(write()))


def test_a_family_without_a_loader_is_refused_by_a_fact(write: Write) -> None:
    other = recipe(write()).with_(model={"method": "pixart"})
    with pytest.raises(Incompatible, match="distill lora requires that the pipeline can load a LoRA"):
        apply(tiny.pixart(), other)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"source": "a/b", "scale": 0.0}, "scale 0 changes nothing"),
        ({"preset": "hyper-flux"}, "did you mean 'hyper-flux-8step'"),
        ({"preset": ["hyper-flux"]}, "preset: unknown"),
        ({}, "distill.source"),
        ({"source": "a/b", "also": [{"source": "c/d", "size": 1}]}, "unknown key"),
    ],
)
def test_fields_that_cannot_be_are_refused(fields: dict[str, Any], wanted: str) -> None:
    with pytest.raises(RecipeError, match=wanted):
        Recipe.parse({"model": "flux", "distill": {"method": "lora", **fields}})
