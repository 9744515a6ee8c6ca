"""Reads a picture of shapes back, by classical vision alone, and compares it with what a caption claims.

Nearest palette colour gives the background; what differs from the background falls into connected
components; a component's colour is its nearest ink, its shape the template with the largest overlap
(intersection over union) in its bounding box, its place or relation follows from the centres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from .render import GROUND, INK, SDF, SIDE, SPOTS, pattern
from .shapes import SHAPES, TEXTURES, Scene, Thing, parse

# N pictures, S side in pixels

Array = np.ndarray
ATTRIBUTES = ("count", "shape", "colour", "place", "relation", "background", "texture")
SMALLEST = 40  # pixels of a component that counts as an object
NEAR = 0.17  # how far a pixel may be from its background, in root mean square over the channels
OVERLAP = 0.70  # least intersection over union with a shape's template
BOX = 32  # side of a template
WEAKEST = 0.06  # least amplitude of a texture; rendered ones have 0.13


@dataclass(frozen=True)
class Blob:
    """One connected component."""

    mask: Array
    centre: tuple[float, float]  # x, y


@cache
def templates() -> dict[str, Array]:
    """Each shape, filled to the edges of a box."""
    fine = np.linspace(-1.2, 1.2, 481)
    found = {}
    for shape in SHAPES:
        inside = SDF[shape](fine[None, :].repeat(481, 0), fine[:, None].repeat(481, 1)) < 0
        found[shape] = to_box(inside)
    return found


def to_box(mask: Array) -> Array:
    """The mask's bounding box, stretched to BOX x BOX."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    at = (np.arange(BOX) + 0.5) / BOX
    return part[np.ix_((at * part.shape[0]).astype(int), (at * part.shape[1]).astype(int))]


def components(mask: Array) -> list[Blob]:
    """Connected parts (4 neighbours) of at least SMALLEST pixels, largest first."""
    label = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        grown = np.pad(label, 1)
        neighbours = (grown[:-2, 1:-1], grown[2:, 1:-1], grown[1:-1, :-2], grown[1:-1, 2:])
        spread = np.where(mask, np.maximum.reduce([label, *neighbours]), 0)
        if (spread == label).all():
            break
        label = spread
    names, sizes = np.unique(label[mask], return_counts=True)
    blobs = []
    for name in names[np.argsort(-sizes)][: (sizes >= SMALLEST).sum()]:
        part = label == name
        y, x = np.nonzero(part)
        blobs.append(Blob(part, (x.min() / 2 + x.max() / 2 + 0.5, y.min() / 2 + y.max() / 2 + 0.5)))
    return blobs


def _distance(image: Array, colour: Array | tuple[float, float, float]) -> Array:
    return np.sqrt(np.square(image - np.asarray(colour, np.float32)).mean(-1))


def _ground(image: Array) -> tuple[str, str, Array]:
    """Background, texture, and the (S, S) mask of what is not background."""
    edge = np.ones((SIDE, SIDE), bool)
    edge[4:-4, 4:-4] = False
    best = min(GROUND, key=lambda name: np.median(_hue_distance(image[edge], GROUND[name])))
    offset = image - np.asarray(GROUND[best], np.float32)
    loose = _hue_distance(image, GROUND[best]) < NEAR
    light = offset.mean(-1)
    fits = {name: _fit(light, loose, name) for name in TEXTURES[1:]}
    texture = max(fits, key=lambda name: abs(fits[name][1]))
    if abs(fits[texture][1]) < WEAKEST:
        texture = "plain"
        steady = light - (np.median(light[loose]) if loose.any() else 0.0)
    else:
        middle, strength = fits[texture]
        steady = light - middle - strength * pattern(texture)
    front = np.sqrt(np.square(offset - light[..., None]).mean(-1) + np.square(steady)) > NEAR / 1.4
    return best, texture, front


def _hue_distance(image: Array, colour: tuple[float, float, float]) -> Array:
    """Distance that forgives as much lightness as a texture's cells differ by."""
    offset = image - np.asarray(colour, np.float32)
    light = offset.mean(-1)
    beyond = np.maximum(abs(light) - 0.15, 0)
    return np.sqrt(np.square(offset - light[..., None]).mean(-1) + np.square(beyond))


def _fit(light: Array, where: Array, texture: str) -> tuple[float, float]:
    """Mean and signed amplitude of a texture in the lightness of the background."""
    cells = pattern(texture)
    halves = [light[where & (cells == sign)] for sign in (-1, 1)]
    if min(map(len, halves)) < 50:
        return 0.0, 0.0
    low, high = (float(np.mean(half)) for half in halves)
    return (low + high) / 2, (high - low) / 2


def _thing(image: Array, blob: Blob) -> Thing:
    box = to_box(blob.mask)
    overlaps = {shape: (box & form).sum() / (box | form).sum() for shape, form in templates().items()}
    shape = max(overlaps, key=overlaps.__getitem__)
    ink = np.median(image[blob.mask], axis=0)
    colour = min(INK, key=lambda name: float(_distance(ink, INK[name])))
    return Thing(shape if overlaps[shape] >= OVERLAP else None, colour)


def _relation(first: Blob, second: Blob) -> str:
    x, y = (b - a for a, b in zip(first.centre, second.centre, strict=True))
    if abs(x) > abs(y):
        return "left of" if x > 0 else "right of"
    return "above" if y > 0 else "below"


def see(image_SS3: Array) -> tuple[Scene, list[Blob]]:
    """What a picture in [0, 1] shows, objects from the largest to the smallest."""
    background, texture, front = _ground(image_SS3)
    blobs = components(front)
    things = tuple(_thing(image_SS3, blob) for blob in blobs)
    place = None
    if len(blobs) == 1:
        place = min(SPOTS, key=lambda name: float(np.hypot(*np.subtract(SPOTS[name], blobs[0].centre))))
    return Scene(things, place, None, background, texture), blobs


def check(image_SS3: Array, caption: str) -> dict[str, bool]:
    """For each attribute that the caption names, whether the picture agrees.

    The number of objects is always named. The picture is (S, S, 3) in [0, 1].
    """
    wanted, (seen, blobs) = parse(caption), see(image_SS3)
    verdict = {"count": len(wanted.things) == len(seen.things)}
    order = _best_order(wanted, seen, blobs)
    things = [seen.things[i] for i in order] + [Thing(None, None)] * (len(wanted.things) - len(order))
    pairs = list(zip(wanted.things, things, strict=True))
    if any(thing.shape for thing in wanted.things):
        verdict["shape"] = all(a.shape in (None, b.shape) for a, b in pairs)
    if any(thing.colour for thing in wanted.things):
        verdict["colour"] = all(a.colour in (None, b.colour) for a, b in pairs)
    if wanted.relation:
        placed = [blobs[i] for i in order]
        verdict["relation"] = len(placed) == 2 and _relation(*placed) == wanted.relation
    for name in ("place", "background", "texture"):
        if getattr(wanted, name):
            verdict[name] = getattr(wanted, name) == getattr(seen, name)
    return verdict


def _likeness(a: Thing, b: Thing) -> int:
    return (a.shape == b.shape) + (a.colour == b.colour)


def _best_order(wanted: Scene, seen: Scene, blobs: list[Blob]) -> list[int]:
    """Which seen object stands for which wanted one: those that agree best, greedily, larger first."""
    left = list(range(len(blobs)))
    order = []
    for thing in wanted.things[: len(blobs)]:
        best = max(left, key=lambda i: _likeness(thing, seen.things[i]))
        left.remove(best)
        order.append(best)
    if len(order) == 2 and wanted.things[0] == wanted.things[1]:
        order = order if _relation(blobs[order[0]], blobs[order[1]]) == wanted.relation else order[::-1]
    return order


def score(images_NSS3: Array, captions: Sequence[str]) -> dict[str, float]:
    """By attribute: of the captions that name it, the share whose picture agrees; `all`: in every one."""
    verdicts = [check(image, caption) for image, caption in zip(images_NSS3, captions, strict=True)]
    named = {name: [verdict[name] for verdict in verdicts if name in verdict] for name in ATTRIBUTES}
    shares = {name: float(np.mean(values)) for name, values in named.items() if values}
    return {**shares, "all": float(np.mean([all(verdict.values()) for verdict in verdicts]))}
