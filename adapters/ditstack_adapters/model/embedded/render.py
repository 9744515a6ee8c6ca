"""Scenes to pictures, whole batches at once, anti-aliased by signed distance functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .shapes import SHAPES, Scene

# N pictures, S side in pixels, P points

SIDE = 64
CELL = 16  # side of a checker cell, width of a stripe, in pixels
CONTRAST = 0.13  # light cells are so much lighter, dark cells so much darker than the plain colour
Array = np.ndarray

INK: dict[str, tuple[float, float, float]] = {
    "red": (0.90, 0.10, 0.10),
    "green": (0.10, 0.72, 0.20),
    "blue": (0.12, 0.22, 0.92),
    "yellow": (0.95, 0.90, 0.10),
    "purple": (0.58, 0.08, 0.78),
    "white": (0.97, 0.97, 0.97),
    "orange": (1.00, 0.50, 0.00),
    "cyan": (0.10, 0.85, 0.90),
}
GROUND: dict[str, tuple[float, float, float]] = {
    "black": (0.13, 0.13, 0.13),
    "gray": (0.48, 0.48, 0.48),
    "brown": (0.45, 0.27, 0.13),
    "pink": (0.86, 0.58, 0.68),
}
SPOTS = {
    "center": (32.0, 32.0),
    "top left": (20.0, 20.0),
    "top right": (44.0, 20.0),
    "bottom left": (20.0, 44.0),
    "bottom right": (44.0, 44.0),
}


def _circle(x: Array, y: Array) -> Array:
    return np.hypot(x, y) - 0.95


def _square(x: Array, y: Array) -> Array:
    return np.maximum(abs(x), abs(y)) - 0.85


def _triangle(x: Array, y: Array) -> Array:
    return np.maximum(y - 0.75, 0.8575 * abs(x) - 0.5145 * y - 0.5145)


def _diamond(x: Array, y: Array) -> Array:
    return (abs(x) + abs(y) - 1.05) * np.sqrt(0.5)


def _cross(x: Array, y: Array) -> Array:
    x, y = abs(x), abs(y)
    return np.minimum(np.maximum(x - 1, y - 0.33), np.maximum(x - 0.33, y - 1))


def _star(x: Array, y: Array) -> Array:
    """Five points, one up: fold the plane into one edge, then the distance to that edge."""
    kx, ky = 0.809016994, -0.587785252
    x, y = abs(x), -y
    for sign in (1, -1):
        over = 2 * np.maximum(sign * kx * x + ky * y, 0)
        x, y = x - over * sign * kx, y - over * ky
    x, y = abs(x), y - 1.1
    edge_x, edge_y = 0.47 * -ky, 0.47 * kx - 1
    along = np.clip((x * edge_x + y * edge_y) / (edge_x**2 + edge_y**2), 0, 1.1)
    return np.hypot(x - edge_x * along, y - edge_y * along) * np.sign(y * edge_x - x * edge_y)


SDF: dict[str, Callable[[Array, Array], Array]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "diamond": _diamond,
    "cross": _cross,
}


@dataclass(frozen=True)
class _Blobs:
    """Every object of a batch, flat: which picture it is in, what, where, how large, in which colour."""

    picture: list[int]
    shape: list[str]
    centre: list[tuple[float, float]]
    radius: list[float]
    ink: list[Array]


def pattern(texture: str) -> Array:
    """(S, S) of -1, 0, 1: the dark, plain and light parts of a background; the top left is always dark."""
    index = (np.arange(SIDE) // CELL) % 2
    if texture == "plain":
        return np.zeros((SIDE, SIDE), np.float32)
    rows, columns = np.meshgrid(index, index, indexing="ij")
    grid = rows ^ columns if texture == "checkered" else rows
    return (grid * 2 - 1).astype(np.float32)


def _grounds(scenes: Sequence[Scene], rng: np.random.Generator) -> Array:
    shade = rng.uniform(-0.04, 0.04, (len(scenes), 1, 1, 1))
    flat = np.array([GROUND[str(scene.background)] for scene in scenes])[:, None, None, :]
    cells = np.stack([pattern(str(scene.texture)) for scene in scenes])
    return (flat + shade + CONTRAST * cells[..., None]).astype(np.float32)


def _layout(scene: Scene, rng: np.random.Generator) -> list[tuple[tuple[float, float], float]]:
    """Centre and radius of each object, in pixels."""
    if len(scene.things) == 1:
        x, y = SPOTS[str(scene.place)]
        jitter = rng.uniform(-2, 2, 2)
        return [((x + jitter[0], y + jitter[1]), float(rng.uniform(14, 17)))]
    if len(scene.things) == 2:
        near, far, side = rng.uniform(14, 18), rng.uniform(46, 50), rng.uniform(26, 38, 2)
        first, second = (near, far) if scene.relation in ("above", "left of") else (far, near)
        ends = [(first, side[0]), (second, side[1])]
        flip = scene.relation in ("above", "below")
        return [((b, a) if flip else (a, b), float(rng.uniform(10, 13))) for a, b in ends]
    corners = rng.permutation([(18, 18), (46, 18), (18, 46), (46, 46)])[: len(scene.things)]
    spots = corners + rng.uniform(-3, 3, corners.shape)
    return [((float(x), float(y)), float(rng.uniform(9, 11))) for x, y in spots]


def _flatten(scenes: Sequence[Scene], rng: np.random.Generator) -> _Blobs:
    blobs = _Blobs([], [], [], [], [])
    for index, scene in enumerate(scenes):
        for thing, (centre, radius) in zip(scene.things, _layout(scene, rng), strict=True):
            blobs.picture.append(index)
            blobs.shape.append(str(thing.shape))
            blobs.centre.append(centre)
            blobs.radius.append(radius)
            blobs.ink.append(np.array(INK[str(thing.colour)]) + rng.uniform(-0.04, 0.04))
    return blobs


def render(scenes: Sequence[Scene], rng: np.random.Generator) -> Array:
    """(N, S, S, 3) float32 in [0, 1]. Objects of one picture do not overlap, so any order will do."""
    canvas = _grounds(scenes, rng)
    blobs = _flatten(scenes, rng)
    picture, centre = np.array(blobs.picture), np.array(blobs.centre, np.float32)
    radius, ink = np.array(blobs.radius, np.float32), np.array(blobs.ink, np.float32)
    pixel = np.arange(SIDE, dtype=np.float32) + 0.5
    for shape in SHAPES:
        chosen = np.flatnonzero([name == shape for name in blobs.shape])
        r = radius[chosen, None, None]
        x = (pixel[None, None, :] - centre[chosen, 0, None, None]) / r
        y = (pixel[None, :, None] - centre[chosen, 1, None, None]) / r
        cover = np.clip(0.5 - SDF[shape](x, y) * r, 0, 1)[..., None]
        for index, blob in enumerate(chosen):  # one at a time: a picture may hold a shape twice
            canvas[picture[blob]] += cover[index] * (ink[blob] - canvas[picture[blob]])
    return np.clip(canvas, 0, 1)
