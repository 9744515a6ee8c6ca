"""Bounds: how large a picture, and how long and how many prompts may be; generous, and named where they are refused."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from ditstack.files import LONGEST_PROMPT, MOST_PROMPTS

LONGEST_SIDE, MOST_PIXELS = 16_384, 2**24


def _size(text: str) -> str:
    width, height = map(int, text.split("x"))
    if max(width, height) > LONGEST_SIDE or width * height > MOST_PIXELS:
        raise ValueError(f"wanted sides of at most {LONGEST_SIDE:,} and at most {MOST_PIXELS:,} pixels")
    return text


def _prompt(text: str) -> str:
    if len(text) > LONGEST_PROMPT:
        raise ValueError(f"a prompt of {len(text):,} characters; wanted at most {LONGEST_PROMPT:,}")
    return text


Prompts = Annotated[tuple[Annotated[str, AfterValidator(_prompt)], ...], Field(strict=False, max_length=MOST_PROMPTS)]
Size = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,4}x[1-9][0-9]{0,4}$"), AfterValidator(_size)]
