"""Encode: a picture or a video becomes the bytes of a file, with a note inside that says how to make it again."""

from __future__ import annotations

import io
import json
from typing import Any, Literal

from PIL import Image, PngImagePlugin
from torch import Tensor

from ditstack.errors import BadFile
from ditstack.pictures import image

Format = Literal["png", "jpg", "webp", "mp4"]
_NAME = "ditstack"
_EXIF, _COMMENT = 0x8769, 0x9286


def encode(picture: Tensor, format: Format, note: dict[str, Any], fps: int = 0) -> bytes:
    """The file's bytes.

    Args:
        picture: (3, H, W), or (F, 3, H, W) for a video, float in [0, 1].
        note: what `read_note` finds again.

    Raises:
        BadFile: a video is asked for in a picture's format, or the other way round.
    """
    video = picture.ndim == 4
    if video != (format == "mp4"):
        found, wanted = ("videos", "mp4") if video else ("pictures", "png, jpg or webp")
        raise BadFile(f"this model makes {found}; write --format {wanted}")
    text = json.dumps(note, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace").decode()
    if format == "mp4":
        return _mp4(picture, text, fps or 8)
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
        with _av().open(io.BytesIO(data)) as file:
            return json.loads(file.metadata["comment"])
    with Image.open(io.BytesIO(data)) as picture:
        if picture.format == "PNG":
            return json.loads(picture.info[_NAME])
        return json.loads(picture.getexif().get_ifd(_EXIF)[_COMMENT][8:])


def _mp4(frames_FCHW: Tensor, text: str, fps: int) -> bytes:
    av, out = _av(), io.BytesIO()
    height, width = frames_FCHW.shape[-2:]
    with av.open(out, "w", format="mp4") as file:
        file.metadata["comment"] = text
        stream = file.add_stream("libx264", rate=fps, options={"crf": "17"})
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.thread_count = width, height, "yuv420p", 1
        for frame in frames_FCHW:
            file.mux(stream.encode(av.VideoFrame.from_image(image(frame))))
        file.mux(stream.encode())
    return out.getvalue()


def _av() -> Any:
    try:
        import av
    except ImportError:
        raise BadFile("writing mp4 needs PyAV: pip install 'ditstack[video]'") from None
    return av
