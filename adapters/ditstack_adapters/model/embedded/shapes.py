"""Scenes of captioned shapes: what there is to say, how it is said, and what training never sees.

A `Scene` with `None` in a field leaves that attribute open, so one type serves the full description
of a picture, the caption that omits some of it, and the list of claims that a checker tests.
"""

from __future__ import annotations

import itertools
import re
import zlib
from dataclasses import dataclass, replace

import numpy as np

SHAPES = ("circle", "square", "triangle", "star", "diamond", "cross")
COLOURS = ("red", "green", "blue", "yellow", "purple", "white", "orange", "cyan")
PLACES = ("center", "top left", "top right", "bottom left", "bottom right")
RELATIONS = ("above", "below", "left of", "right of")
BACKGROUNDS = ("black", "gray", "brown", "pink")
TEXTURES = ("plain", "checkered", "striped")
LEVELS = (1, 2, 3)  # one object; two objects with a relation; three objects, more of everything
HELD_OUT_SHARE = 5  # one combination in so many is never trained on


@dataclass(frozen=True)
class Thing:
    """One object."""

    shape: str | None
    colour: str | None

    def __str__(self) -> str:
        return " ".join(["a", *([self.colour] if self.colour else []), self.shape or "object"])


@dataclass(frozen=True)
class Scene:
    """One picture, or as much of it as a caption tells."""

    things: tuple[Thing, ...]
    place: str | None = None  # of a lone object
    relation: str | None = None  # of the first object to the second
    background: str | None = None
    texture: str | None = None

    def __str__(self) -> str:
        joint = f" {self.relation} " if self.relation else " and "
        text = joint.join(map(str, self.things))
        if self.place:
            text += f" in the {self.place}"
        ground = [word for word in (self.texture, self.background) if word]
        return f"{text} on a {' '.join(ground)} background" if ground else text


def choices(level: int) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The shapes, colours and textures of a level."""
    return (SHAPES, COLOURS, TEXTURES) if level == 3 else (SHAPES[:4], COLOURS[:6], TEXTURES[:2])


def held_out(scene: Scene) -> bool:
    """Whether a combination is kept for evaluation: objects, layout and, for one object, background."""
    key = f"{scene.things} {scene.place} {scene.relation}"
    if len(scene.things) == 1:
        key += f" {scene.background}"
    return zlib.crc32(key.encode()) % HELD_OUT_SHARE == 0


def random_scene(rng: np.random.Generator, level: int) -> Scene:
    """A complete scene, held out or not."""
    shapes, colours, textures = choices(level)

    def pick(words: tuple[str, ...]) -> str:
        return words[int(rng.integers(len(words)))]

    things = tuple(Thing(pick(shapes), pick(colours)) for _ in range(level))
    return Scene(
        things,
        place=pick(PLACES) if level == 1 else None,
        relation=pick(RELATIONS) if level == 2 else None,
        background=pick(BACKGROUNDS),
        texture=pick(textures),
    )


def training_scene(rng: np.random.Generator, level: int) -> Scene:
    """A complete scene that is not held out."""
    while held_out(scene := random_scene(rng, level)):
        pass
    return scene


def omit(scene: Scene, rng: np.random.Generator, share: float) -> Scene:
    """The same scene with each attribute left unsaid with probability `share`."""

    def maybe(word: str | None) -> str | None:
        return None if rng.random() < share else word

    things = tuple(Thing(maybe(thing.shape), maybe(thing.colour)) for thing in scene.things)
    return replace(
        scene,
        things=things,
        place=maybe(scene.place),
        background=maybe(scene.background),
        texture=maybe(scene.texture),
    )


def parse(caption: str) -> Scene:
    """The scene that a caption tells of: the inverse of `str(scene)`."""
    text, _, ground = caption.partition(" on a ")
    relation = next((word for word in RELATIONS if f" {word} " in text), None)
    text, _, place = text.partition(" in the ")
    things = re.split(f" (?:{'|'.join(RELATIONS)}|and) ", text)
    return Scene(
        tuple(_parse_thing(thing) for thing in things),
        place=place or None,
        relation=relation,
        background=next((word for word in ground.split() if word in BACKGROUNDS), None),
        texture=next((word for word in ground.split() if word in TEXTURES), None),
    )


def _parse_thing(text: str) -> Thing:
    words = text.split()
    shape = next((word for word in words if word in SHAPES), None)
    return Thing(shape, next((word for word in words if word in COLOURS), None))


def _level_1(unseen: bool) -> list[str]:
    """Every caption that names at least four attributes; the texture is named in two of three."""
    shapes, colours, textures = choices(1)
    scenes = (
        Scene((Thing(shape, colour),), place, None, background, texture)
        for shape, colour, place, background, texture in itertools.product(
            shapes, colours, PLACES, BACKGROUNDS, (*textures, None)
        )
    )
    return [str(scene) for scene in scenes if held_out(scene) == unseen]


def _draw(unseen: bool, n: int, seed: int, level: int) -> list[str]:
    rng = np.random.default_rng(seed)
    if level == 1:
        prompts = _level_1(unseen)
        if n > len(prompts):
            raise ValueError(f"{n} prompts were asked for, but there are only {len(prompts)}")
        return [prompts[i] for i in rng.permutation(len(prompts))[:n]]
    drawn: dict[str, None] = {}
    while len(drawn) < n:
        if held_out(scene := random_scene(rng, level)) == unseen:
            drawn[str(scene)] = None
    return list(drawn)


def unseen_prompts(n: int, seed: int = 0, level: int = 1) -> list[str]:
    """`n` different captions whose combination of attributes was never trained on: for evaluation."""
    return _draw(True, n, seed, level)


def seen_prompts(n: int, seed: int = 0, level: int = 1) -> list[str]:
    """`n` different captions of trained combinations: for calibration."""
    return _draw(False, n, seed, level)
