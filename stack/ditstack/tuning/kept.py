"""Kept: what a tuning that was killed had measured, in a file beside the recipe that it is to write."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError
from torch import Tensor

from ditstack.errors import BadFile
from ditstack.files import is_there, read_text, write_atomically
from ditstack.measure.check import Outcome
from ditstack.recipe.capabilities import describe_machine
from ditstack.recipe.recipe import Recipe
from ditstack.report import FILED, versions


class KeptRun(BaseModel):
    """An option that was measured."""

    model_config = FILED

    outcome: Outcome
    macs_ratio: float


class KeptRuns(BaseModel):
    """What the file holds: the runs by number of prompts and option."""

    model_config = FILED

    conditions: dict[str, str]
    runs: dict[str, KeptRun] = {}


class Kept:
    """The runs of an earlier tuning that holds of the present one, and those of this one.

    Args:
        path: None keeps nothing.
        conditions: what all runs depend on; a file that was begun under others is begun anew.
        tell: told how many runs are taken over, or what differs.
    """

    def __init__(self, path: Path | None, conditions: dict[str, str], tell: Callable[[str], None]) -> None:
        self.path, self._held = path, KeptRuns(conditions=conditions)
        found = read_kept(path)
        if found is None:
            return
        others = [name for name, one in conditions.items() if found.conditions.get(name) != one]
        if others:
            tell(f"what an earlier run measured is measured anew, since it had another {', '.join(others)}")
        else:
            self._held = found
            tell(f"{len(found.runs)} measurements of an earlier run are taken over")

    @property
    def runs(self) -> dict[str, KeptRun]:
        """By number of prompts and option."""
        return self._held.runs

    def add(self, key: str, run: KeptRun) -> None:
        """Keep a run at once."""
        self._held.runs[key] = run
        if self.path is not None:
            write_atomically(self.path, self._held.model_dump_json().encode())

    def drop(self) -> None:
        """The tuning is over."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def read_kept(path: Path | None) -> KeptRuns | None:
    """What a file holds; None where there is none.

    Raises:
        BadFile: it is not one of ours, or torn.
    """
    if path is None or not is_there(path):
        return None
    try:
        return KeptRuns.model_validate_json(read_text(path))
    except ValidationError:
        raise BadFile(f"{path} holds no measurements of a tuning; move it away, or name another --out") from None


def conditions_of(base: Recipe, prompts: list[str], max_memory: int, plain_BCHW: Tensor) -> dict[str, str]:
    """What measurements depend on, by name.

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
