"""The checker on real renders, where the truth is known."""

import numpy as np
import pytest

from ditstack_adapters.model.embedded import shapes
from ditstack_adapters.model.embedded.checker import check, score, see
from ditstack_adapters.model.embedded.render import render


def rendered(level: int, n: int) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(level)
    scenes = [shapes.random_scene(rng, level) for _ in range(n)]
    return render(scenes, rng), [str(scene) for scene in scenes]


def draw(caption: str) -> np.ndarray:
    return render([shapes.parse(caption)], np.random.default_rng(0))[0]


@pytest.mark.parametrize("level", shapes.LEVELS)
def test_real_renders_agree_with_their_captions(level: int) -> None:
    agree = score(*rendered(level, 100))
    assert all(share >= 0.99 for share in agree.values()), agree


@pytest.mark.parametrize("level", shapes.LEVELS)
def test_shuffled_captions_do_not_agree(level: int) -> None:
    images, captions = rendered(level, 100)
    assert score(images, captions[1:] + captions[:1])["all"] < 0.02


def test_noise_does_not_change_the_verdict() -> None:
    images, captions = rendered(1, 50)
    noisy = images + 0.04 * np.random.default_rng(0).standard_normal(images.shape)
    assert score(np.clip(noisy, 0, 1), captions)["all"] >= 0.98


@pytest.mark.parametrize(
    ("attribute", "claim"),
    [
        ("shape", "a red square in the center on a plain gray background"),
        ("colour", "a blue circle in the center on a plain gray background"),
        ("place", "a red circle in the top left on a plain gray background"),
        ("background", "a red circle in the center on a plain pink background"),
        ("texture", "a red circle in the center on a checkered gray background"),
        ("count", "a red circle and a red circle on a plain gray background"),
    ],
)
def test_each_wrong_word_is_found(attribute: str, claim: str) -> None:
    truth = "a red circle in the center on a plain gray background"
    image = draw(truth)
    assert all(check(image, truth).values())
    assert not check(image, claim)[attribute]


def test_a_wrong_relation_is_found() -> None:
    image = draw("a red circle above a red square on a plain gray background")
    assert check(image, "a red circle above a red square")["relation"]
    assert not check(image, "a red square above a red circle")["relation"]


def test_only_what_the_caption_names_is_judged() -> None:
    image = draw("a red circle in the center on a plain gray background")
    assert check(image, "a object") == {"count": True}


def test_an_empty_picture_shows_no_objects() -> None:
    scene, _ = see(np.full((64, 64, 3), 0.48, np.float32))
    assert scene == shapes.Scene((), None, None, "gray", "plain")


def test_a_shapeless_blot_has_no_shape() -> None:
    image = np.full((64, 64, 3), 0.48, np.float32)
    image[20:44, 20:24] = image[40:44, 20:44] = (0.9, 0.1, 0.1)  # an L
    assert not check(image, "a red square")["shape"]
