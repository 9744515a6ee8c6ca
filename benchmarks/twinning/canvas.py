"""Scenes of several objects at any resolution, as the embedded model's renderer draws them at its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ditstack_adapters.model.embedded.render import CONTRAST, GROUND, INK, SDF, SIDE, pattern
from ditstack_adapters.model.embedded.shapes import Scene

# N pictures, S side in pixels; places and radii are in 64ths of the side

Array = np.ndarray
REACH = 1.25  # of a shape beyond its radius, with room for its soft edge
CORNERS = ((18.0, 18.0), (46.0, 18.0), (18.0, 46.0), (46.0, 46.0))


def render(scenes: Sequence[Scene], rng: np.random.Generator, side: int) -> Array:
    """(N, S, S, 3) float32 in [0, 1] of complete scenes with two or three objects."""
    canvas = np.empty((len(scenes), side, side, 3), np.float32)
    for picture, scene in zip(canvas, scenes, strict=True):
        cells = pattern(str(scene.texture)).repeat(side // SIDE, 0).repeat(side // SIDE, 1)
        picture[:] = np.array(GROUND[str(scene.background)]) + rng.uniform(-0.04, 0.04) + CONTRAST * cells[..., None]
        for thing, (centre, radius) in zip(scene.things, layout(scene, rng), strict=True):
            ink = np.array(INK[str(thing.colour)], np.float32) + np.float32(rng.uniform(-0.04, 0.04))
            draw(picture, str(thing.shape), centre, radius, ink)
    return canvas.clip(0, 1)


def draw(picture: Array, shape: str, centre: tuple[float, float], radius: float, ink: Array) -> None:
    """Lays one object over the picture, anti-aliased by its signed distance."""
    side = len(picture)
    x, y, r = (value * side / SIDE for value in (*centre, radius))
    columns, rows = (slice(max(0, int(at - REACH * r - 1)), int(at + REACH * r + 2)) for at in (x, y))
    pixel = np.arange(side, dtype=np.float32) + 0.5
    across, down = np.broadcast_arrays((pixel[None, columns] - x) / r, (pixel[rows, None] - y) / r)
    cover = np.clip(0.5 - SDF[shape](across, down) * r, 0, 1)[..., None].astype(np.float32)
    picture[rows, columns] += cover * (ink - picture[rows, columns])


def layout(scene: Scene, rng: np.random.Generator) -> list[tuple[tuple[float, float], float]]:
    """Centre and radius of each object: two as their relation says, three in corners."""
    if len(scene.things) == 2:
        near, far, aside = rng.uniform(14, 18), rng.uniform(46, 50), rng.uniform(26, 38, 2)
        along = (near, far) if scene.relation in ("above", "left of") else (far, near)
        flip = scene.relation in ("above", "below")
        ends = [(b, a) if flip else (a, b) for a, b in zip(along, aside, strict=True)]
        return [((float(x), float(y)), float(rng.uniform(10, 13))) for x, y in ends]
    corners = rng.permutation(CORNERS)[: len(scene.things)] + rng.uniform(-3, 3, (len(scene.things), 2))
    return [((float(x), float(y)), float(rng.uniform(9, 11))) for x, y in corners]
