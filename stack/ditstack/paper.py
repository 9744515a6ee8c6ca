"""Pictures on paper: tensors become PNG and MP4 files, and a grid that shows plain, stacked and their difference."""

from __future__ import annotations

import base64
import html
import importlib.util
import io
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ditstack.errors import BadFile

LABELS = ("plain", "stacked", "difference x 4")
FPS, STRIP = 16, 8
"""Frames per second where the model names none, and frames in a strip."""
_CELL, _GAP, _LEFT, _TEXT = 192, 6, 96, 44


def image(picture_CHW: Tensor) -> Image.Image:
    """A float picture in [0, 1] as an 8-bit image."""
    data = (picture_CHW.clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    return Image.fromarray(data.numpy())


def save_all(images: Tensor, prompts: list[str], folder: Path, fps: int = 0) -> list[Path]:
    """One PNG per picture, numbered and named after its prompt; a video is an MP4, and its PNG a strip of frames.

    Args:
        images: (B, 3, H, W), or (B, F, 3, H, W) for videos.
    """
    paths = []
    for place, (one, prompt) in enumerate(zip(images, prompts, strict=True)):
        words = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60]
        paths.append(folder / f"{place:03d}-{words or 'picture'}.png")
        if one.ndim == 4:
            video(one, paths[-1].with_suffix(".mp4"), fps)
        (strip(one) if one.ndim == 4 else image(one)).save(paths[-1])
    return paths


def video(frames_FCHW: Tensor, path: Path, fps: int, comment: str = "") -> None:
    """An MP4 of float frames in [0, 1]; equal frames give equal bytes.

    Args:
        fps: frames per second; 0 takes FPS.
        comment: what `comment_of` finds again.

    Raises:
        BadFile: the package that writes it is missing.
    """
    height, width = frames_FCHW.shape[-2:]
    more = ["-threads", "1", "-fflags", "+bitexact", "-metadata", f"comment={comment}"]
    form = {"fps": fps or FPS, "quality": 8, "macro_block_size": 2, "output_params": more}
    writer = _ffmpeg().write_frames(str(path), (width, height), **form)
    writer.send(None)
    for frame in frames_FCHW:
        writer.send(np.ascontiguousarray(image(frame)))
    writer.close()


def comment_of(path: Path) -> str:
    """The comment inside an MP4.

    Raises:
        BadFile: the package that reads it is missing.
    """
    command = [_ffmpeg().get_ffmpeg_exe(), "-i", str(path), "-f", "ffmetadata", "-"]
    told = subprocess.run(command, capture_output=True, check=True, stdin=subprocess.DEVNULL).stdout.decode()
    found = re.search(r"^comment=(.*)$", told, re.MULTILINE)
    return re.sub(r"\\(.)", r"\1", found[1]) if found else ""


def _ffmpeg() -> Any:
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        raise BadFile("an MP4 needs the package imageio-ffmpeg: pip install 'ditstack[video]'")
    import imageio_ffmpeg

    return imageio_ffmpeg


def strip(frames_FCHW: Tensor) -> Image.Image:
    """At most STRIP frames, evenly spread from the first to the last, side by side."""
    count = min(STRIP, len(frames_FCHW))
    chosen = [round(place * (len(frames_FCHW) - 1) / max(count - 1, 1)) for place in range(count)]
    return image(torch.cat([frames_FCHW[place] for place in chosen], dim=-1))


def as_html(picture: Image.Image, title: str = "") -> str:
    """A picture as a notebook shows it: all of it inside the text."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(title)}" style="max-width:100%" src="data:image/png;base64,{data}">'


def sheet(images: Tensor, prompts: list[str]) -> Image.Image:
    """Pictures side by side, their prompts above; of a video the frame in the middle."""
    return _sheet((_still(images),), ("",), prompts)


def grid(plain_BCHW: Tensor, stacked_BCHW: Tensor, prompts: list[str]) -> Image.Image:
    """A row of plain pictures, a row of stacked ones, a row of four times their difference, prompts above.

    Of a video the frame in the middle is shown.
    """
    plain_BCHW, stacked_BCHW = _still(plain_BCHW), _still(stacked_BCHW)
    return _sheet((plain_BCHW, stacked_BCHW, (plain_BCHW - stacked_BCHW).abs() * 4), LABELS, prompts)


def _sheet(rows: tuple[Tensor, ...], labels: tuple[str, ...], prompts: list[str]) -> Image.Image:
    height, left = round(_CELL * rows[0].shape[-2] / rows[0].shape[-1]), _LEFT if any(labels) else _GAP
    size = left + len(prompts) * (_CELL + _GAP), _TEXT + len(rows) * (height + _GAP)
    made = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(made), ImageFont.load_default(12)
    for column, prompt in enumerate(prompts):
        x = left + column * (_CELL + _GAP)
        draw.multiline_text((x, 2), _wrap(prompt, 32), fill="black", font=font, spacing=1)
        for row, images in enumerate(rows):
            cell = image(images[column]).resize((_CELL, height), Image.Resampling.NEAREST)
            made.paste(cell, (x, _TEXT + row * (height + _GAP)))
    for row, label in enumerate(labels):
        draw.text((4, _TEXT + row * (height + _GAP) + height // 2), label, fill="black", font=font)
    return made


def _still(images: Tensor) -> Tensor:
    return images[:, images.shape[1] // 2] if images.ndim == 5 else images


def _wrap(text: str, width: int) -> str:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) + 1 > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines[:3])
