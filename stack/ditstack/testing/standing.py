"""Standing: a method on a tiny FLUX pipeline, what it makes there, and which methods a test file speaks for."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from ditstack.recipe.adapter import STAGES, find, methods
from ditstack.recipe.origin import distribution_of
from ditstack.recipe.plan import plan
from ditstack.recipe.recipe import Recipe
from ditstack.stack import Stack, apply
from ditstack.testing import tiny_pipelines as tiny

PROMPTS = ["a red circle", "a blue star", "a green square"]
STEPS = 7
WITHOUT_LAWS = ("model", "distill")
"""A model is what methods stand on, and a LoRA is a file: neither stands on a tiny pipeline as it is."""


def brought_by(test_file: Path) -> list[tuple[str, str]]:
    """(stage, method) of every method of the project in which a test file lies.

    They are the methods below the nearest pyproject.toml, and those of the installed distribution of its name.

    Raises:
        ValueError: there are none.
    """
    root = next((one for one in test_file.resolve().parents if (one / "pyproject.toml").is_file()), None)
    if root is None:
        raise ValueError(f"no pyproject.toml above {test_file}: it tells whose methods the laws are to test")
    name = re.search(r'^name\s*=\s*"([^"]+)"', (root / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    own = name[1] if name else ""
    found = [
        (stage, method)
        for stage in STAGES
        if stage not in WITHOUT_LAWS
        for method in methods(stage)
        if belongs(find(stage, method), root, own)
    ]
    if not found:
        raise ValueError(f"the project {own or root} brings no method; is it installed where these tests run?")
    return found


def belongs(kind: type, root: Path, distribution: str) -> bool:
    """Whether a method is of a project, as a folder or as what was installed of it."""
    found = distribution_of(kind)
    normal = re.sub(r"[-_.]+", "-", distribution).lower()
    if found is not None:
        return re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower() == normal
    module = importlib.import_module(kind.__module__)
    return Path(str(module.__file__)).resolve().is_relative_to(root)


def recipe(stage: str, method: str, **fields: Any) -> Recipe:
    """The method at its `trial` fields, on FLUX; what it must fit is fitted on the spot."""
    kind = find(stage, method)
    data: dict[str, Any] = {"model": {"method": "flux", "device": "cpu"}}
    data[stage] = {"method": method, **kind.unattended, **(fields or kind.trial)}
    sampler = {"steps": STEPS, "guidance": 3.5, "size": "16x16"}
    return Recipe.parse({**data, "sampler": sampler, "calibration": ["a red star", "a blue ring"]}, f"{stage}-{method}")


def stand(stage: str, method: str, pipeline: Any = None, **fields: Any) -> Stack:
    """The method standing on a tiny pipeline; the test is skipped, with the reason, where it cannot stand here."""
    wanted = recipe(stage, method, **fields)
    if reasons := [reason for step in plan(wanted) for reason in step.reasons]:
        pytest.skip(reasons[0])
    return apply(pipeline or tiny.flux(), wanted)


def run(stack: Stack, prompts: list[str] = PROMPTS, **more: Any) -> Tensor:
    """Final latents, with guidance in two passes."""
    return sampled(stack.pipeline, prompts, **more)


def sampled(pipeline: Any, prompts: list[str] = PROMPTS, **more: Any) -> Tensor:
    """The same of a plain pipeline."""
    return tiny.call(pipeline, prompts, more.pop("steps", STEPS), output_type="latent", true_cfg_scale=3.0, **more)
