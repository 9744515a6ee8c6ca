"""The benchmarks of speed: floors count what runs, ladders go on, and what grows is ours to know."""

from typing import Any

import pytest
import torch

import gpu_timing
import limits
import scaling
from ditstack.assembly.build import build
from ditstack.pipeline.pipe import Pipe
from ditstack.recipe.recipe import Recipe
from limits import Ceilings, floors
from models import SHAPES

TOP = Ceilings({"float32": 1e10, "int8": 4e10}, 1e10)


def stand(**stages: Any) -> tuple[Pipe, dict[str, Any]]:
    pipeline = SHAPES["flux"].make("cpu", torch.float32, True)
    pipe = build(Recipe.parse({"model": {"method": "flux", "device": "cpu"}, **stages}, "small"), pipeline)
    return pipe, SHAPES["flux"].call(pipeline, True)


def test_a_floor_counts_every_product_once_and_a_forecast_reads_what_is_kept() -> None:
    pipe, call = stand(cache={"method": "svdcache", "interval": 4})
    found = floors(pipe, lambda: gpu_timing.generate(pipe, call, 4), TOP)
    macs = {record.ran: record.cost.macs for record in pipe.passes.records}
    for kind, step in found.items():
        assert step.linears.macs + step.attention.macs == macs[kind]
        assert step.floor >= 2 * macs[kind] / 1e10
    assert found["forecast"].attention.macs == 0
    assert found["forecast"].kept > 0
    assert found["forecast"].floor < found["full"].floor / 5


def test_rounded_weights_move_less_and_rounded_activations_multiply_faster() -> None:
    steps = {}
    for scheme in (None, "int8", "int8dq"):
        stages = {"quantize": {"method": "torchao", "scheme": scheme}} if scheme else {}
        pipe, call = stand(**stages)
        steps[scheme] = floors(pipe, lambda pipe=pipe, call=call: gpu_timing.generate(pipe, call, 2), TOP)["full"]
    assert steps["int8"].linears.bytes < steps[None].linears.bytes
    assert steps["int8dq"].linears.seconds < 0.6 * steps["int8"].linears.seconds


@pytest.mark.parametrize("kind", scaling.CACHES)
def test_a_point_tells_what_is_ours_of_a_step(kind: str) -> None:
    point = scaling.point(kind, TOP, tokens=64, rank=4)
    assert 0 < point["own"] < point["step"]
    assert point["kept_bytes"] > 0


def test_exponents_are_slopes() -> None:
    rows = [
        {"kind": "forecast", "axis": "tokens", "value": n, "full": n**2, "step": n, "own": 3 * n, "kept_bytes": 8}
        for n in (4, 8, 16)
    ]
    found = scaling.exponents(rows)
    assert found["forecast tokens full"] == pytest.approx(2)
    assert found["forecast tokens own"] == pytest.approx(1)
    assert found["forecast tokens kept_bytes"] == pytest.approx(0)


def test_ceilings_are_rates() -> None:
    found = limits.ceilings(torch.device("cpu"))
    assert found.products["float32"] > 1e8
    assert found.bytes > 1e7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_ceilings_are_measured_on_random_numbers(dtype: torch.dtype) -> None:
    assert limits.random(32, dtype, torch.device("cpu")).unique().numel() > 100
