"""Kept: what a search or a tuning that was killed had measured, in a file beside what it is to write."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from torch import Tensor

from ditstack.errors import BadFile
from ditstack.files import is_there, read_text, write_atomically
from ditstack.measure.check import Outcome
from ditstack.recipe.capabilities import describe_machine
from ditstack.recipe.recipe import Recipe
from ditstack.report import FILED, versions

Value = TypeVar("Value")


class KeptRun(BaseModel):
    """An option of a tuning that was measured."""

    model_config = FILED

    outcome: Outcome
    macs_ratio: float


@dataclass(frozen=True)
class Form(Generic[Value]):
    """What a kind of file holds.

    Attributes:
        what: for people.
        under: the key that values lie under.
        values: their type, by what was measured.
    """

    what: str
    under: str
    values: TypeAdapter[dict[str, Value]]

    def read(self, path: Path | None) -> tuple[dict[str, Any], dict[str, Value]] | None:
        """The conditions and the values of a file; None where there is none.

        Raises:
            BadFile: it is not one of ours, or torn.
        """
        if path is None or not is_there(path):
            return None
        try:
            found = _FILE.validate_json(read_text(path))
            if found.keys() == {"conditions", self.under}:
                return found["conditions"], self.values.validate_python(found[self.under])
        except ValidationError:
            pass
        raise BadFile(f"{path} holds no {self.what}; move it away, or name another --out") from None

    def write(self, path: Path, conditions: dict[str, Any], values: dict[str, Value]) -> None:
        """Replace a file whole."""
        data = {"conditions": conditions, self.under: self.values.dump_python(values, mode="json")}
        write_atomically(path, _FILE.dump_json(data))


_FILE = TypeAdapter(dict[str, dict[str, Any]], config=ConfigDict(ser_json_inf_nan="constants"))
RUNS = Form("measurements of a tuning", "runs", TypeAdapter(dict[str, KeptRun]))
"""The runs of a tuning, by number of prompts and option."""
SCORES = Form("notes of a search", "known", TypeAdapter(dict[str, list[float]]))
"""What the runs of a search have told, by what ran."""


class Kept(Generic[Value]):
    """What an earlier process measured that holds of the present one, and what this one measures.

    Args:
        path: None keeps nothing.
        conditions: what all of it depends on; a file that was begun under others is begun anew.
        tell: told how much is taken over, or what differs.
    """

    def __init__(
        self,
        form: Form[Value],
        path: Path | None = None,
        conditions: dict[str, Any] | None = None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.form, self.path, self.conditions = form, path, conditions or {}
        self.known: dict[str, Value] = {}
        found = form.read(path)
        if found is None:
            return
        under, known = found
        others = [name for name in {**self.conditions, **under} if under.get(name) != self.conditions.get(name)]
        if others:
            tell(f"what an earlier run measured is measured anew, since it had another {', '.join(others)}")
        else:
            self.known = known
            tell(f"{len(known)} measurements of an earlier run are taken over")

    def add(self, key: str, value: Value) -> None:
        """Keep it at once."""
        self.known[key] = value
        if self.path is not None:
            self.form.write(self.path, self.conditions, self.known)

    def drop(self) -> None:
        """What was measured for is done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def conditions_of(base: Recipe, prompts: list[str], max_memory: int, plain_BCHW: Tensor) -> dict[str, str]:
    """What the measurements of a tuning depend on, by name.

    Args:
        plain_BCHW: pictures of the plain model, which tell of its weights to the last bit.
    """
    return {
        "recipe": base.to_yaml(),
        "prompts": _digest(repr(prompts).encode()),
        "limit of memory": str(max_memory),
        "machine": describe_machine(),
        "versions": yaml.safe_dump(versions()),
        "model": _digest(plain_BCHW.contiguous().numpy().tobytes()),
    }


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
