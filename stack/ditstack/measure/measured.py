"""Measured: seconds a picture that recipes of the shelf took on a GPU, from reports that lie beside them."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ValidationError

from ditstack.errors import BadFile
from ditstack.files import is_there, read_text
from ditstack.recipe.layers import shelf
from ditstack.report import FILED

FILE = "measured.json"


class MeasuredSeconds(BaseModel):
    """What one recipe took for one picture or video.

    Attributes:
        device: as its report names it.
        seconds: of denoising.
        report: the file of results that says so.
    """

    model_config = FILED

    device: str
    seconds: float
    report: str

    def __str__(self) -> str:
        return f"{self.seconds:.3g} s a picture on {self.device}"


class MeasuredShelf(BaseModel):
    """The file: by recipe."""

    model_config = FILED

    recipes: dict[str, MeasuredSeconds]


def measured_seconds(folder: Path | None = None) -> dict[str, MeasuredSeconds]:
    """By recipe, what the shelf's file says; empty where nothing was measured yet.

    Raises:
        BadFile: the file is there and cannot be read.
    """
    path = (folder or shelf()) / FILE
    if not is_there(path):
        return {}
    try:
        return MeasuredShelf.model_validate_json(read_text(path)).recipes
    except ValidationError as error:
        raise BadFile(f"{path} holds no measured seconds; write it with benchmarks/shelf_figures.py") from error
