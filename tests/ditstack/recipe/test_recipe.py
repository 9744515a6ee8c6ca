"""Recipes: strict, layered, all reasons at once."""

from pathlib import Path

import pytest

from ditstack.errors import RecipeError
from ditstack.recipe.layers import shelf_names
from ditstack.recipe.recipe import Recipe


def reasons(text: str, folder: Path, changes: list[str] | None = None) -> str:
    path = folder / "my.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        Recipe.read(path, changes)
    return str(caught.value)


@pytest.mark.parametrize("name", shelf_names())
def test_every_shipped_recipe_is_written_back_equal(name: str) -> None:
    recipe = Recipe.read(name)
    assert Recipe.parse(recipe.resolved()) == recipe


def test_a_misspelt_key_is_named_with_its_file_and_the_near_word(tmp_path: Path) -> None:
    text = reasons("extends: tiny\ncache: {method: svdcache, intervall: 5}", tmp_path)
    assert "my.yaml: cache.intervall: unknown key; did you mean 'interval'?" in text


def test_an_unknown_method_is_answered_with_the_near_word(tmp_path: Path) -> None:
    assert "unknown method 'svdcash'; did you mean 'svdcache'?" in reasons("extends: tiny\ncache: svdcash", tmp_path)


def test_wrong_types_and_illegal_values_are_named_with_what_was_found(tmp_path: Path) -> None:
    text = reasons("extends: tiny\ncache: {method: svdcache, interval: five, order: true}", tmp_path)
    assert "cache.interval: found 'five'; input should be a valid integer" in text
    assert "cache.order: found True" in text
    assert "cache.interval: found -3; input should be greater than or equal to 1" in reasons(
        "extends: tiny\ncache: {method: svdcache, interval: -3}", tmp_path
    )


def test_all_reasons_come_at_once_each_with_its_origin(tmp_path: Path) -> None:
    text = reasons(
        "extends: tiny\nquantise: x\nsampler: {stepss: 4}\ncache: {method: reuse, interval: 0}",
        tmp_path,
        ["quantize.method=torchao", "quantize.scheme=int9", "nonsense"],
    )
    for part in ("quantise: unknown key", "did you mean 'steps'", "cache.interval: found 0"):
        assert f"my.yaml: {part}" in text or part in text
    assert "--set: quantize.scheme: found 'int9'" in text
    assert "--set nonsense: write it as path=value" in text


def test_a_cycle_of_extends_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml")
    (tmp_path / "b.yaml").write_text("extends: a.yaml")
    with pytest.raises(RecipeError, match=r"a cycle: a.yaml -> b.yaml -> a.yaml"):
        Recipe.read(tmp_path / "a.yaml")


def test_a_later_layer_merges_fields_and_another_method_starts_afresh(tmp_path: Path) -> None:
    (tmp_path / "below.yaml").write_text("extends: tiny\ncache: {method: svdcache, interval: 9, order: 2}")
    (tmp_path / "above.yaml").write_text("extends: below.yaml\ncache: {interval: 7}")
    assert Recipe.read(tmp_path / "above.yaml").resolved()["cache"]["order"] == 2
    switched = Recipe.read(tmp_path / "above.yaml", ["cache=reuse"]).resolved()["cache"]
    assert switched == {"method": "reuse", "interval": 2}
    assert "cache" not in Recipe.read(tmp_path / "above.yaml", ["cache=none"]).resolved()


def test_a_key_written_twice_and_what_is_no_mapping_are_refused(tmp_path: Path) -> None:
    assert "written twice: seed" in reasons("extends: tiny\nseed: 1\nseed: 2", tmp_path)
    assert "found list; wanted keys and values" in reasons("- tiny", tmp_path)
    assert "written twice" not in reasons("extends: [tiny]", tmp_path)


def test_an_unknown_recipe_lists_what_is_near() -> None:
    with pytest.raises(RecipeError, match="did you mean 'tiny'"):
        Recipe.read("tinny")


def test_the_plain_baseline_keeps_model_sampler_and_seed_only() -> None:
    plain = Recipe.read("tiny-int8-native-svdcache", ["seed=5"]).plain()
    assert list(plain.adapters) == ["model"]
    assert plain.seed == 5


def test_what_travels_inside_a_picture_tells_no_place_on_a_machine(tmp_path: Path) -> None:
    source, factors = tmp_path / "models" / "mine", "~/secret/f.safetensors"
    changes = [f"model.source={source}", f"cache={{method: icc, factors: {factors}}}", "prompts=[/imagine a cat]"]
    told = Recipe.read("flux", changes).public()
    assert (told["model"]["source"], told["cache"]["factors"]) == ("mine", "f.safetensors")
    assert told["prompts"] == ["/imagine a cat"]
    assert Recipe.read("flux").public()["model"]["source"].count("/") == 1


def test_a_recipe_with_changes_is_what_a_file_that_extends_it_would_be(tmp_path: Path) -> None:
    base = Recipe.read("tiny-int8-native-svdcache")
    changed = base.with_("mine", cache={"interval": 5}, sampler={"steps": 8}, quantize=None, seed=3)
    (tmp_path / "mine.yaml").write_text(
        "extends: tiny-int8-native-svdcache\ncache: {interval: 5}\nsampler: {steps: 8}\nquantize: none\nseed: 3\n"
    )
    assert changed == Recipe.read(tmp_path / "mine.yaml")
    assert (changed.name, base.with_(seed=1).name) == ("mine", base.name)
    assert base.with_() == base
    assert base.with_(cache="reuse").resolved()["cache"] == {"method": "reuse", "interval": 2}
    with pytest.raises(RecipeError, match="did you mean 'interval'"):
        base.with_(cache={"intervall": 5})


def test_a_changed_lora_brings_its_own_sampler() -> None:
    few = Recipe.read("tiny").with_(distill={"method": "lora", "preset": "tiny-4step"})
    assert few.sampler.steps == 4
    assert few.with_(sampler={"steps": 6}).sampler.steps == 6
