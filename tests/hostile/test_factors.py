"""Factors with bits flipped and bytes cut at random: never a wrong picture in silence."""

import random
from pathlib import Path

import pytest
import torch
from cases import FIGURES, LONG, one_case

from ditstack import Recipe, apply
from ditstack.calibration.calibrate import calibrate
from ditstack.testing import tiny_pipelines as tiny

PROMPTS = ["a red star", "a blue ring"]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path, bytes]:
    """A recipe with its factors: ICC on rounded weights with what compensates their rounding."""
    file = tmp_path_factory.mktemp("factors") / "f.safetensors"
    data = {
        "model": {"method": "flux", "device": "cpu"},
        "quantize": {"method": "torchao", "scheme": "int4", "compensate": 0.125},
        "cache": {"method": "icc", "interval": 2, "rank": 0.25, "factors": str(file)},
        "sampler": {"steps": 3, "size": "16x16"},
        "calibration": PROMPTS,
    }
    recipe = Recipe.parse(data, "r")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ditstack_adapters.model.flux.Flux.load", lambda self, **_: tiny.flux())
        calibrate(recipe, PROMPTS, None, lambda line: None)
    return recipe, file, file.read_bytes()


def changed(whole: bytes, chance: random.Random, header: int) -> tuple[str, bytes]:
    """One flipped bit of the data or of the header, or the end cut off."""
    kind = chance.choice(["factors: a bit of the data flipped", "factors: a bit of the header flipped", "factors: cut"])
    if kind.endswith("cut"):
        return kind, whole[: chance.randrange(len(whole))]
    place = chance.randrange(header, len(whole)) if "data" in kind else chance.randrange(header)
    data = bytearray(whole)
    data[place] ^= 1 << chance.randrange(8)
    return kind, bytes(data)


def test_no_damaged_file_serves(fitted: tuple[Recipe, Path, bytes]) -> None:
    from ditstack.factors import Factors

    _, file, whole = fitted
    header = 8 + int.from_bytes(whole[:8], "little")
    chance = random.Random(None if LONG else 0)
    try:
        for _ in range(3000 if LONG else 300):
            kind, data = changed(whole, chance, header)
            file.write_bytes(data)
            before = FIGURES[kind].refused if kind in FIGURES else 0
            with one_case(kind):
                Factors.load(file)
            assert FIGURES[kind].refused == before + 1, "it was read in silence"
    finally:
        file.write_bytes(whole)


def test_a_stack_refuses_a_damaged_file_and_serves_a_whole_one(fitted: tuple[Recipe, Path, bytes]) -> None:
    recipe, file, whole = fitted
    chance = random.Random(1)
    try:
        apply(pipeline := tiny.flux(), recipe)
        picture = tiny.call(pipeline, PROMPTS, 3)
        for turn in range(1, 21 if LONG else 3):
            file.write_bytes(changed(whole, chance, 8 + int.from_bytes(whole[:8], "little"))[1])
            with one_case("stacks on damaged factors"):
                apply(tiny.flux(), recipe)
            assert FIGURES["stacks on damaged factors"].refused == turn, "it stood on them in silence"
    finally:
        file.write_bytes(whole)
    apply(pipeline := tiny.flux(), recipe)
    assert torch.equal(tiny.call(pipeline, PROMPTS, 3), picture)
