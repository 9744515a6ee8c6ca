"""Captions, the held-out combinations, and rendering."""

import numpy as np
import pytest

from ditstack_adapters.model.embedded import shapes
from ditstack_adapters.model.embedded.render import SIDE, render


@pytest.mark.parametrize("level", shapes.LEVELS)
def test_a_caption_says_what_its_scene_holds(level: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        scene = shapes.omit(shapes.random_scene(rng, level), rng, 0.3)
        assert shapes.parse(str(scene)) == scene


@pytest.mark.parametrize("level", shapes.LEVELS)
def test_training_never_draws_a_held_out_combination(level: int) -> None:
    rng = np.random.default_rng(1)
    assert not any(shapes.held_out(shapes.training_scene(rng, level)) for _ in range(200))


@pytest.mark.parametrize("level", shapes.LEVELS)
def test_unseen_prompts_are_held_out_and_seen_prompts_are_not(level: int) -> None:
    assert all(shapes.held_out(shapes.parse(prompt)) for prompt in shapes.unseen_prompts(256, level=level))
    assert not any(shapes.held_out(shapes.parse(prompt)) for prompt in shapes.seen_prompts(256, level=level))


def test_prompts_are_distinct_and_the_same_for_the_same_seed() -> None:
    prompts = shapes.unseen_prompts(256, seed=3)
    assert len(set(prompts)) == 256
    assert prompts == shapes.unseen_prompts(256, seed=3)
    assert prompts != shapes.unseen_prompts(256, seed=4)


def test_prompts_name_at_least_four_attributes() -> None:
    for scene in map(shapes.parse, shapes.unseen_prompts(256)):
        thing = scene.things[0]
        named = (thing.shape, thing.colour, scene.place, scene.background, scene.texture)
        assert sum(word is not None for word in named) >= 4


def test_too_many_prompts_are_refused_with_the_number_there_is() -> None:
    with pytest.raises(ValueError, match="there are only 291"):
        shapes.unseen_prompts(1000)


def test_every_word_is_trained_on_with_every_other_attribute() -> None:
    seen = [shapes.parse(prompt) for prompt in shapes.seen_prompts(1149)]
    pairs = {(scene.things[0], scene.place) for scene in seen}
    assert len(pairs) == 4 * 6 * 5


@pytest.mark.parametrize("level", shapes.LEVELS)
def test_rendering_is_deterministic_and_in_range(level: int) -> None:
    rng = np.random.default_rng(2)
    scenes = [shapes.random_scene(rng, level) for _ in range(8)]
    first, second = (render(scenes, np.random.default_rng(5)) for _ in range(2))
    assert first.shape == (8, SIDE, SIDE, 3)
    assert 0 <= first.min() < first.max() <= 1
    np.testing.assert_array_equal(first, second)
