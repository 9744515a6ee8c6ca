"""Few-step LoRAs that are known by name, and how a recipe then samples."""

from pathlib import Path
from typing import Any

from ditstack.recipe.adapter import find
from ditstack.recipe.recipe import Recipe


def test_every_preset_is_whole(subtests: Any) -> None:
    import diffusers

    from ditstack_adapters.distill._presets import PRESETS

    for name in PRESETS:
        with subtests.test(name):
            adapter = find("distill", "lora")(preset=name)  # pyright: ignore[reportCallIssue]
            assert adapter.sampler["steps"] == int(name.split("-")[-1].removesuffix("step").replace("alpha", "8"))
            assert "guidance" in adapter.sampler
            assert hasattr(diffusers, adapter.sampler.get("scheduler", "FluxPipeline"))


def test_a_preset_sets_how_the_recipe_samples_and_what_is_written_beside_or_later_wins(tmp_path: Path) -> None:
    def sampler(text: str, *changes: str) -> tuple[int, float | None]:
        (tmp_path / "mine.yaml").write_text(f"extends: tiny\ndistill: {{method: lora, preset: tiny-4step}}\n{text}")
        read = Recipe.read(tmp_path / "mine.yaml", list(changes))
        assert Recipe.parse(read.resolved()).sampler == read.sampler
        return read.sampler.steps, read.sampler.guidance

    assert sampler("") == (4, 1.0)
    assert sampler("sampler: {steps: 6}") == (6, 1.0)
    assert sampler("", "sampler.steps=5") == (5, 1.0)
    assert sampler("", "distill.fuse=false", "distill.steps=3") == (3, 1.0)
    assert sampler("sampler: {steps: 6}", "distill.fuse=false") == (6, 1.0)
    assert sampler("", "distill=none") == (28, 3.0)


def test_a_source_of_ones_own_takes_a_presets_settings_but_not_its_file() -> None:
    adapter: Any = find("distill", "lora")(preset="hyper-flux-8step", source="my/lora")  # pyright: ignore[reportCallIssue]
    assert (adapter.source, adapter.weight_name, adapter.scale, adapter.steps) == ("my/lora", None, 0.125, 8)
