"""A calibration that is killed leaves the old factors whole and goes on where it was; what changed is noticed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import loras
from ditstack import apply
from ditstack.assembly.build import build
from ditstack.calibration.calibrate import calibrate, conditions, provide_factors
from ditstack.calibration.run import Partial
from ditstack.errors import StaleFactors
from ditstack.factors import Factors
from ditstack.recipe.recipe import Recipe
from ditstack.testing import tiny_pipelines as tiny

PROMPTS = ["a red star", "a blue ring"]


class Killed(BaseException):
    """As if by a signal: nobody catches it, nothing is tidied up."""


def recipe(**changes: Any) -> Recipe:
    data: dict[str, Any] = {
        "model": {"method": "flux", "device": "cpu"},
        "quantize": {"method": "torchao", "scheme": "int4", "compensate": 0.125},
        "cache": {"method": "icc", "interval": 2, "rank": 0.25},
        "sampler": {"steps": 3, "size": "16x16"},
        "calibration": PROMPTS,
    }
    return Recipe.parse({**data, **changes}, "r")


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ditstack_adapters.model.flux.Flux.load", lambda self, **_: tiny.flux())
    # what a dying calibration has kept must not hang on how slow the disk is
    monkeypatch.setattr("ditstack.calibration.run.PAUSE", 0)


def fit(file: Path, die_at: int | None = None, fields: Recipe | None = None) -> tuple[dict[str, Tensor], list[str]]:
    """Calibrate; dying when so many prompts have been told of. The factors, and all that was told."""
    told: list[str] = []

    def bar(part: str, done: int, count: int) -> None:
        told.append(f"{part} {done}/{count}")
        if len(told) == die_at:
            raise Killed

    if die_at is None:
        calibrate(fields or recipe(), PROMPTS, file, told.append, bar)
        return Factors.load(file).tensors, told
    with pytest.raises(Killed):
        calibrate(fields or recipe(), PROMPTS, file, lambda line: None, bar)
    return {}, told


def test_a_killed_calibration_leaves_the_old_factors_whole_and_goes_on_to_the_same_ones(tmp_path: Path) -> None:
    whole, all_told = fit(tmp_path / "whole")
    steps = [line for line in all_told if "/" in line]
    file = tmp_path / "f"
    Factors({"old": torch.ones(1)}, {}).save(file)
    old = file.read_bytes()
    # while rounding errors are gathered, and while ICC's increments are
    assert [fit(file, die_at=2)[1][-1] for _ in range(2)] == ["rounding errors 2/2", "increments 2/2"]
    assert file.read_bytes() == old
    resumed, after = fit(file)
    assert all(torch.equal(one, whole[name]) for name, one in resumed.items())
    assert len(resumed) == len(whole)
    assert "rounding errors 1/2" not in after
    assert steps[-1] in after
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


ELSEWHERE = """
import json, sys
from ditstack.testing import tiny_pipelines as tiny
import torch
from ditstack import Recipe, apply
recipe, prompts, threads, file = json.loads(sys.argv[1])
torch.set_num_threads(threads)
apply(pipeline := tiny.flux(), Recipe.parse(recipe, "r"))
torch.save(tiny.call(pipeline, prompts, 3, output_type="latent"), file)
"""


def test_another_process_makes_the_same_pictures_of_a_factors_file(tmp_path: Path) -> None:
    fit(tmp_path / "f")
    told = recipe().resolved()
    told["cache"]["factors"] = str(tmp_path / "f")
    given = json.dumps([told, PROMPTS, torch.get_num_threads(), str(tmp_path / "latents")])
    there = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", ELSEWHERE, given], check=True, env=there, timeout=300)
    apply(pipeline := tiny.flux(), Recipe.parse(told, "r"))
    here = tiny.call(pipeline, PROMPTS, 3, output_type="latent")
    assert torch.equal(torch.load(tmp_path / "latents"), here)


def test_what_was_gathered_under_other_conditions_is_not_used(tmp_path: Path) -> None:
    file = tmp_path / "f"
    fit(file, die_at=2)
    other = recipe(quantize={"method": "torchao", "scheme": "int3", "compensate": 0.125})
    assert fit(file, die_at=1, fields=other)[1] == ["rounding errors 1/2"]


def test_a_calibration_says_what_each_refit_changed(tmp_path: Path) -> None:
    rounded = recipe(quantize={"method": "torchao", "scheme": "int3", "compensate": 0.125})
    _, told = fit(tmp_path / "f", fields=rounded)
    assert any("of their energy is compensated" in line for line in told)
    assert "with the previous factors" not in told[-1]
    assert told[-1].startswith("cache: final latents are ")
    assert "with the previous factors" in fit(tmp_path / "f", fields=rounded)[1][-1]


def test_another_quantizer_rank_step_count_or_attention_is_noticed(tmp_path: Path) -> None:
    fitted = Factors({}, conditions(recipe(), build(recipe())))
    fitted.save(tmp_path / "f")
    changes: list[tuple[dict[str, Any], str]] = [
        ({"quantize": {"method": "bitsandbytes", "scheme": "nf4", "compensate": 0.125}}, "quantize, weights"),
        ({"quantize": {"method": "torchao", "scheme": "int4", "compensate": 0.25}}, "quantize"),
        ({"cache": {"method": "icc", "interval": 2, "rank": 0.125, "factors": str(tmp_path / "f")}}, "cache"),
        ({"sampler": {"steps": 5, "size": "16x16"}}, "sampler.steps"),
        ({"attention": {"method": "int8qk"}}, "attention"),
    ]
    for change, named in changes:
        changed = recipe(**{"cache": {**recipe().resolved()["cache"], "factors": str(tmp_path / "f")}, **change})
        with pytest.raises(StaleFactors, match=f"another {named};"):
            provide_factors(changed, build(changed))


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "beside"])
def test_another_lora_is_noticed_even_under_the_same_name(tmp_path: Path, fuse: bool) -> None:
    found = []
    for size in (0.03, 0.05):
        named = loras.recipe(loras.writer(tmp_path)(size=size), fuse=fuse)
        found.append(conditions(named, build(named)))
    assert [name for name in found[0] if found[0][name] != found[1][name]] == ["weights"]
    stronger = loras.recipe(str(tmp_path / "one.safetensors"), fuse=fuse, scale=0.5)
    now = conditions(stronger, build(stronger))
    assert [name for name in now if now[name] != found[1][name]][-1] == "distill"


def test_one_flipped_weight_is_noticed() -> None:
    pipe = build(recipe(quantize=None))
    before = conditions(recipe(quantize=None), pipe)
    weight = pipe.transformers["transformer"].transformer_blocks[0].attn.to_q.weight  # pyright: ignore
    bits = weight.data.view(torch.int32)
    bits[0, 0] ^= 1
    after = conditions(recipe(quantize=None), pipe)
    assert [name for name in before if before[name] != after[name]] == ["weights"]


def test_progress_is_written_rarely_where_writing_takes_long(tmp_path: Path) -> None:
    partial = Partial(tmp_path / "p", {})
    partial.keep("a", {"x": torch.ones(2)})
    partial._pause = 1e9
    partial.keep("a", {"x": torch.zeros(2)})
    assert torch.equal(Partial(tmp_path / "p", {}).of("a")["x"], torch.ones(2))
    partial.finish("cache", {"y": torch.ones(1)})
    assert Partial(tmp_path / "p", {}).of("a") == {}
    assert torch.equal(Partial(tmp_path / "p", {}).fitted("cache")["y"], torch.ones(1))
