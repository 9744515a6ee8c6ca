"""Pictures on paper: tensors become PNG files, and a grid that shows plain, stacked and their difference."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

LABELS = ("plain", "stacked", "difference x 4")
_CELL, _GAP, _LEFT, _TEXT = 192, 6, 96, 44


def image(picture_CHW: Tensor) -> Image.Image:
    """A float picture in [0, 1] as an 8-bit image."""
    data = (picture_CHW.clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    return Image.fromarray(data.numpy())


def save_all(images_BCHW: Tensor, prompts: list[str], folder: Path) -> list[Path]:
    """One PNG per picture, numbered and named after its prompt."""
    paths = []
    for place, (picture, prompt) in enumerate(zip(images_BCHW, prompts, strict=True)):
        words = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60]
        paths.append(folder / f"{place:03d}-{words or 'picture'}.png")
        image(picture).save(paths[-1])
    return paths


def grid(plain_BCHW: Tensor, stacked_BCHW: Tensor, prompts: list[str]) -> Image.Image:
    """A row of plain pictures, a row of stacked ones, a row of four times their difference, prompts above."""
    rows = (plain_BCHW, stacked_BCHW, (plain_BCHW - stacked_BCHW).abs() * 4)
    height = round(_CELL * plain_BCHW.shape[-2] / plain_BCHW.shape[-1])
    sheet = Image.new("RGB", (_LEFT + len(prompts) * (_CELL + _GAP), _TEXT + 3 * (height + _GAP)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for column, prompt in enumerate(prompts):
        x = _LEFT + column * (_CELL + _GAP)
        draw.multiline_text((x, 2), _wrap(prompt, 32), fill="black", font=font, spacing=1)
        for row, images in enumerate(rows):
            cell = image(images[column]).resize((_CELL, height), Image.Resampling.NEAREST)
            sheet.paste(cell, (x, _TEXT + row * (height + _GAP)))
    for row, label in enumerate(LABELS):
        draw.text((4, _TEXT + row * (height + _GAP) + height // 2), label, fill="black", font=font)
    return sheet


def _wrap(text: str, width: int) -> str:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) + 1 > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines[:3])
