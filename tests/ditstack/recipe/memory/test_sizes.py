"""Sizes: what is declared of a family is what its classes are; of files on this computer the headers tell."""

import json
import shutil
import struct
from pathlib import Path

import pytest

from ditstack import load
from ditstack.errors import BadFile
from ditstack.recipe.memory.sizes import header, sizes_of
from ditstack.recipe.recipe import Recipe
from sizes import FOLDER, build, count, inputs, run, shapes

FAMILIES = sorted(path.stem for path in FOLDER.glob("*.json"))


def declared(family: str) -> dict:
    return json.loads((FOLDER / f"{family}.json").read_text())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_declared_sizes_are_those_of_the_class_with_its_published_configuration(family: str) -> None:
    for name, part in declared(family)["parts"].items():
        module = build(part)
        assert part["parameters"] == count(module), name
        if name.startswith("transformer"):
            told = {tuple(one[:2]): one[2] for one in part["tensors"]}
            assert told == {tuple(one[:2]): one[2] for one in shapes(module, {})}


def test_what_is_alive_in_a_pass_was_counted_so() -> None:
    known = declared("dit")
    transformer = build(known["parts"]["transformer"])
    peak, reads = run(transformer, inputs("dit", (1, 16, 16), 0, transformer), 256, 0)
    assert round(peak / 256) == known["bytes_per_token"]
    stated = {name: read for name, _, _, read in known["parts"]["transformer"]["tensors"] if name.endswith("q.weight")}
    assert stated == {"transformer_blocks.*.attn1.to_q.weight": "both"}
    assert reads["transformer_blocks.0.attn1.to_q"] == "both"


def test_every_family_states_the_checkpoint_that_its_recipe_loads() -> None:
    for family in FAMILIES:
        found = sizes_of(Recipe.read(family).model)
        assert found is not None
        assert declared(family)["checkpoint"] in found.told
    other = sizes_of(Recipe.read("flux", ["model.source=black-forest-labs/FLUX.1-schnell"]).model)
    assert other is not None
    assert "as of black-forest-labs/FLUX.1-dev; black-forest-labs/FLUX.1-schnell is not on this computer" in other.told


def test_of_a_model_on_this_computer_the_headers_tell_and_no_weight_is_read() -> None:
    found = sizes_of(Recipe.read("tiny").model)
    assert found is not None
    pipeline = load("tiny").pipeline
    for part in found.parts:
        once = {one.data_ptr(): one.numel() for one in getattr(pipeline, part.name).state_dict().values()}
        assert part.parameters == sum(once.values())
    assert (found.guidance, found.tokens((64, 64), 0), found.width) == ("passes", 64, 128)


def test_nothing_is_said_of_a_model_of_which_nothing_is_known() -> None:
    recipe = Recipe.parse({"model": {"method": "auto", "source": "some/where"}})
    assert sizes_of(recipe.model) is None


def test_a_torn_header_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    for data in (b"", b"123", struct.pack("<Q", 2**40), struct.pack("<Q", 4) + b"{[}]", struct.pack("<Q", 2) + b"[]"):
        file.write_bytes(data)
        with pytest.raises(BadFile, match=r"model.safetensors: the header is torn"):
            header(file)


def test_a_second_precision_is_not_counted_and_a_strange_configuration_is_left_to_the_loader(tmp_path: Path) -> None:
    embedded = Path(Recipe.read("tiny").model.files())
    folder = Path(shutil.copytree(embedded, tmp_path / "model"))
    recipe = Recipe.read("tiny", [f"model.source={folder}"])
    before = sizes_of(recipe.model)
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    shutil.copy(weights, weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert before is not None
    assert sizes_of(recipe.model) == before
    for text in ("[]", "{}", "nothing", '{"num_attention_heads": [1], "attention_head_dim": null}'):
        (folder / "transformer" / "config.json").write_text(text)
        assert sizes_of(recipe.model) is None
