"""Sizes: how large the parts of a model are: from the headers of its files, or as its family's file states them."""

from __future__ import annotations

import inspect
import json
import re
import struct
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ditstack.errors import BadFile
from ditstack.files import expand, read_json

if TYPE_CHECKING:
    from ditstack.recipe.model import Model

LARGEST_HEADER = 2**26
WIDEST = 36
"""Bytes of bf16 that are alive in one pass, for each token and each number of the width: the most of all families."""
PIXEL = 1536.0
"""Bytes of bf16 that are alive in decoding one pixel: of the VAE that FLUX, SD3, PixArt and DiT share."""
NUMBERED = re.compile(r"(?<=blocks\.)\d+")
VARIANT = re.compile(r"\.(fp16|bf16|fp32|non_ema|ema)\b")
"""In the name of a file that holds the same weights once more."""
ROW = re.compile(r"norm|embed|adaln|modulation|_mod")
"""Names of linears that read one row a picture, where no forward has told."""


@dataclass(frozen=True)
class Weight:
    """A parameter of a transformer, and how many blocks have one like it.

    Attributes:
        name: with a star for the block's number.
        reads: of a linear: "picture", "text" or "both" tokens, or "row", one a picture; else empty.
    """

    name: str
    count: int
    shape: tuple[int, ...]
    reads: str = ""

    @property
    def each(self) -> int:
        size = 1
        for one in self.shape:
            size *= one
        return size

    @property
    def is_linear(self) -> bool:
        return len(self.shape) == 2 and self.name.endswith(".weight")


@dataclass(frozen=True)
class Part:
    """A component of a pipeline: a transformer with its parameters, another by their number alone."""

    name: str
    parameters: int
    weights: tuple[Weight, ...] = ()


@dataclass(frozen=True)
class Sizes:
    """A model as a plan sees it.

    Attributes:
        guidance: "embedded", "batched" (both branches in one pass) or "passes" (one after the other).
        pixels: the side of what one token shows; `frames`: how many frames it covers, 0 for pictures.
        text: tokens of a prompt, at most.
        bytes_per_token: of bf16, alive at the peak of one pass; `bytes_per_pixel` at that of decoding.
        told: where the figures are from, for people.
    """

    parts: tuple[Part, ...]
    guidance: str
    pixels: int
    frames: int
    text: int
    width: int
    bytes_per_token: float
    bytes_per_pixel: float
    told: str
    size: tuple[int, int] = (1024, 1024)
    """What the pipeline makes where nothing is said."""

    @cached_property
    def transformers(self) -> tuple[Part, ...]:
        return tuple(part for part in self.parts if part.weights)

    def tokens(self, size: tuple[int, int], frames: int) -> int:
        """Of one picture of width x height, or of a video."""
        width, height = size
        across = (width // self.pixels) * (height // self.pixels)
        return max(1, across) * ((frames - 1) // self.frames + 1 if self.frames and frames else 1)


def sizes_of(model: Model) -> Sizes | None:
    """Of the model that a recipe names: its own files' where they are on this computer, else its family's.

    Another checkpoint of a family is taken to be as large as the one that is known. None where nothing is known.
    """
    known = None if model.source in model.other_sizes else _of_family(model)
    folder = _folder(model)
    if folder is not None:
        return _of_files(model, folder, known)
    if known is not None and model.source != known.source:
        return replace(known.sizes, told=f"as of {known.source}; {model.source} is not on this computer")
    return None if known is None else known.sizes


@dataclass(frozen=True)
class _Family:
    """What a family's file states, of which checkpoint."""

    source: str
    sizes: Sizes


def _of_family(model: Model) -> _Family | None:
    file = Path(inspect.getfile(type(model))).parent / "sizes" / f"{model.method}.json"
    if not file.is_file():
        return None
    data = json.loads(file.read_text(encoding="utf-8"))
    parts = tuple(
        Part(name, one["parameters"], tuple(Weight(a, b, tuple(c), d) for a, b, c, d in one.get("tensors", ())))
        for name, one in data["parts"].items()
    )
    rest = {key: data[key] for key in Sizes.__dataclass_fields__ if key in data and key != "parts"}
    rest["size"] = tuple(rest["size"])
    told = f"of {data['checkpoint']}, whose configuration was built without weights"
    return _Family(data["checkpoint"], Sizes(parts, told=told, **rest))


def _folder(model: Model) -> Path | None:
    """Where the model lies on this computer: its own folder, or the hub's snapshot of it."""
    path = expand(model.files())
    if path.is_dir():
        return path
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model.source, "model_index.json", revision=model.revision)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def _of_files(model: Model, folder: Path, known: _Family | None) -> Sizes | None:
    """From the headers of the safetensors of every component."""
    parts = []
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = sorted(inner.glob("*.safetensors"))
        plain = [file for file in files if not VARIANT.search(file.name)]
        shapes = {name: shape for file in plain or files for name, shape in header(file).items()}
        if shapes:
            parts.append(_part(inner.name, shapes))
    width = _width(_config(folder / "transformer"))
    if not any(part.weights for part in parts) or not width:
        return None if known is None else known.sizes
    told = f"from the headers of the files in {model.source}"
    if known is not None:
        wider = width / known.sizes.width
        return replace(
            known.sizes,
            parts=tuple(parts), width=width, told=told, bytes_per_token=known.sizes.bytes_per_token * wider,
        )  # fmt: skip
    guidance = "passes" if model.guidance == "true_cfg_scale" else "batched"
    moving = 4 if model.fps != 0 else 0
    text = model.call.get("max_sequence_length", 512)
    stages = _config(folder / "vae").get("block_out_channels")
    pixels = (
        2 ** len(stages) if isinstance(stages, list) and 0 < len(stages) < 8 else 16
    )  # a coder that halves between its stages, and patches of 2 x 2
    return Sizes(tuple(parts), guidance, pixels, moving, text, width, WIDEST * width, PIXEL, told)


def _config(folder: Path) -> dict[str, Any]:
    """A component's configuration; empty where it has none that can be read: loading will say so."""
    try:
        found = read_json(folder / "config.json")
    except BadFile:
        return {}
    return found if isinstance(found, dict) else {}


def _width(config: dict[str, Any]) -> int:
    """Of a transformer's stream; 0 where it is not told."""
    heads, each, whole = (config.get(key) for key in ("num_attention_heads", "attention_head_dim", "hidden_size"))
    if isinstance(heads, int) and isinstance(each, int):
        return heads * each
    return whole if isinstance(whole, int) else 0


def _part(name: str, shapes: dict[str, tuple[int, ...]]) -> Part:
    whole = sum(Weight(one, 1, shape).each for one, shape in shapes.items())
    if not name.startswith("transformer"):
        return Part(name, whole)
    alike = Counter((NUMBERED.sub("*", one), shape) for one, shape in shapes.items())
    return Part(
        name, whole, tuple(Weight(one, count, shape, _reads(one, shape)) for (one, shape), count in alike.items())
    )


def _reads(name: str, shape: tuple[int, ...]) -> str:
    if len(shape) != 2 or not name.endswith(".weight"):
        return ""
    return "row" if ROW.search(name) else "both"


def header(file: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a safetensors file; its data is not read.

    Raises:
        BadFile: it is torn.
    """
    with file.open("rb") as stream:
        head = stream.read(8)
        size = struct.unpack("<Q", head)[0] if len(head) == 8 else LARGEST_HEADER + 1
        text = stream.read(size) if size <= LARGEST_HEADER else b""
    try:
        found = json.loads(text)
        return {name: tuple(one["shape"]) for name, one in found.items() if name != "__metadata__"}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadFile(f"{file}: the header is torn; download or write the file again") from error
