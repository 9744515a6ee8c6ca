"""Encode: a picture or a video becomes the bytes of a file, with a note inside that says how to make it again."""

from __future__ import annotations

import io
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from PIL import Image, PngImagePlugin
from torch import Tensor

from ditstack.errors import BadFile
from ditstack.paper import comment_of, image, video

Format = Literal["png", "jpg", "webp", "mp4"]
_NAME = "ditstack"
_EXIF, _COMMENT = 0x8769, 0x9286


def check_format(moves: bool, format: Format) -> None:
    """Refuse a video in a picture's format, and the other way round.

    Raises:
        BadFile: with the format to write.
    """
    if moves != (format == "mp4"):
        found, wanted = ("videos", "mp4") if moves else ("pictures", "png, jpg or webp")
        raise BadFile(f"this model makes {found}; write --format {wanted}")


def encode(picture: Tensor, format: Format, note: dict[str, Any], fps: int = 0) -> bytes:
    """The file's bytes.

    Args:
        picture: (3, H, W), or (F, 3, H, W) for a video, float in [0, 1].
        note: what `read_note` finds again.

    Raises:
        BadFile: a video is asked for in a picture's format, or the other way round.
    """
    check_format(picture.ndim == 4, format)
    text = json.dumps(note, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace").decode()
    if format == "mp4":
        return _mp4(picture, text, fps)
    out = io.BytesIO()
    if format == "png":
        info = PngImagePlugin.PngInfo()
        info.add_itxt(_NAME, text)
        image(picture).save(out, "png", pnginfo=info, compress_level=4)
    else:
        exif = Image.Exif()
        exif.get_ifd(_EXIF)[_COMMENT] = b"\0" * 8 + text.encode()
        image(picture).save(out, "jpeg" if format == "jpg" else "webp", quality=95, exif=exif)
    return out.getvalue()


def read_note(data: bytes) -> dict[str, Any]:
    """The note inside a picture or video that `encode` made."""
    if data[4:8] == b"ftyp":
        with TemporaryDirectory() as folder:
            path = Path(folder) / "video.mp4"
            path.write_bytes(data)
            return json.loads(comment_of(path))
    with Image.open(io.BytesIO(data)) as picture:
        if picture.format == "PNG":
            return json.loads(picture.info[_NAME])
        return json.loads(picture.getexif().get_ifd(_EXIF)[_COMMENT][8:])


def _mp4(frames_FCHW: Tensor, text: str, fps: int) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        video(frames_FCHW, path, fps, text)
        return path.read_bytes()
