"""Moving shapes: what there is to say of them, how they are drawn, and a checker that follows them.

One shape on a plain background crosses the picture or stands still; a caption may leave things unsaid.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ditstack_adapters.model.embedded.checker import see
from ditstack_adapters.model.embedded.render import GROUND, INK
from ditstack_adapters.model.embedded.shapes import BACKGROUNDS, choices
from twinning.canvas import draw

# N videos, F frames, S side in pixels; places and radii are in 64ths of the side

Array = np.ndarray
SHAPES, COLOURS, _ = choices(1)
MOTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}
REACH = (22.0, 28.0)  # how far a shape moves
STEADY = 6.0  # a shape that moves less stands still
HELD_OUT_SHARE = 5  # one combination in so many is never trained on


@dataclass(frozen=True)
class Clip:
    """One video, or as much of it as a caption tells."""

    shape: str | None
    colour: str | None
    motion: str | None
    background: str | None

    def __str__(self) -> str:
        words = ["a", self.colour, self.shape or "object"]
        if self.motion:
            words += ["standing" if self.motion == "still" else "moving", self.motion]
        if self.background:
            words += ["on a", self.background, "background"]
        return " ".join(word for word in words if word)


def parse(caption: str) -> Clip:
    """The clip that a caption tells of: the inverse of `str(clip)`."""
    words = caption.split()

    def one_of(known: Sequence[str]) -> str | None:
        return next((word for word in words if word in known), None)

    return Clip(one_of(SHAPES), one_of(COLOURS), one_of([*MOTIONS]), one_of(BACKGROUNDS))


def held_out(clip: Clip) -> bool:
    """Whether a combination is kept for evaluation."""
    return zlib.crc32(f"{clip.shape} {clip.colour} {clip.motion} {clip.background}".encode()) % HELD_OUT_SHARE == 0


def random_clip(rng: np.random.Generator, unseen: bool) -> Clip:
    """A complete one, of those that are held out or of the others."""

    def pick(words: Sequence[str]) -> str:
        return words[int(rng.integers(len(words)))]

    while held_out(clip := Clip(pick(SHAPES), pick(COLOURS), pick([*MOTIONS]), pick(BACKGROUNDS))) != unseen:
        pass
    return clip


def omit(clip: Clip, rng: np.random.Generator, share: float) -> Clip:
    """The same clip with each attribute left unsaid with probability `share`."""
    return replace(clip, **{name: None for name in ("shape", "colour", "motion", "background") if rng.random() < share})


def render(clips: Sequence[Clip], rng: np.random.Generator, frames: int, side: int) -> Array:
    """(N, F, S, S, 3) float32 in [0, 1]."""
    canvas = np.empty((len(clips), frames, side, side, 3), np.float32)
    for video, clip in zip(canvas, clips, strict=True):
        video[:] = np.array(GROUND[str(clip.background)]) + rng.uniform(-0.04, 0.04)
        ink = np.array(INK[str(clip.colour)], np.float32) + np.float32(rng.uniform(-0.04, 0.04))
        way = np.array(MOTIONS[str(clip.motion)]) * rng.uniform(*REACH)
        radius = float(rng.uniform(13, 16))
        room = 31 - radius - abs(way) / 2
        middle = 32 + rng.uniform(-1, 1, 2) * np.clip(room, 0, 12)
        for time, picture in zip(np.linspace(-0.5, 0.5, frames), video, strict=True):
            x, y = middle + time * way
            draw(picture, str(clip.shape), (float(x), float(y)), radius, ink)
    return canvas.clip(0, 1)


def check(video_FSS3: Array, caption: str) -> dict[str, bool]:
    """For each attribute that the caption names, whether the video agrees; (F, 64, 64, 3) in [0, 1].

    Shape, colour and background must be right in at least four of the five frames that are looked at, one object
    seen in all of them; the motion follows from where its centre is in the first and in the last.
    """
    wanted = parse(caption)
    looked = [see(video_FSS3[place]) for place in np.linspace(0, len(video_FSS3) - 1, 5).round().astype(int)]
    verdict = {"count": all(len(blobs) == 1 for _, blobs in looked)}
    for name in ("shape", "colour"):
        if getattr(wanted, name):
            right = [any(getattr(thing, name) == getattr(wanted, name) for thing in seen.things) for seen, _ in looked]
            verdict[name] = sum(right) >= 4
    if wanted.background:
        verdict["background"] = sum(seen.background == wanted.background for seen, _ in looked) >= 4
    if wanted.motion:
        first, last = looked[0][1], looked[-1][1]
        verdict["motion"] = bool(first and last) and _motion(first[0].centre, last[0].centre) == wanted.motion
    return verdict


def _motion(first: tuple[float, float], last: tuple[float, float]) -> str:
    way = np.subtract(last, first)
    if np.hypot(*way) < STEADY:
        return "still"
    return max(MOTIONS, key=lambda name: float(np.dot(way, MOTIONS[name])))
