"""Records of passes: steps, kinds and MACs are what really ran, for every kind of pass, fitted here or loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import families
from counting import block_runs, blocks_of
from ditstack import apply
from ditstack.caching.linears import find_linears
from ditstack.calibration.statistics import seeing
from ditstack.pipeline.pipe import Pipe
from ditstack.recipe.recipe import Recipe
from ditstack.stack import Stack
from ditstack.testing import tiny_pipelines as tiny
from ditstack.testing.tiny_pipelines import call

P = ["a red circle", "a blue star"]
STEPS = 6
INT8, INT4 = ({"method": "torchao", "scheme": scheme} for scheme in ("int8", "int4"))
COMPENSATED = {**INT4, "compensate": 0.125}
ICC: dict[str, Any] = {"method": "icc", "rank": 0.25, "calibrate": "auto"}
MIXED: dict[str, Any] = {"method": "mixed", "schedule": "FFCSRC", "rank": 0.25, "calibrate": "auto"}
SUBSPACE: dict[str, Any] = {"method": "svdcache", "interval": 2, "rank": 4}
STACKS: dict[str, dict[str, Any]] = {
    "none": {},
    "svdcache": {"cache": {"method": "svdcache", "interval": 3}},
    "subspace found as it runs": {"cache": SUBSPACE},
    "subspace fitted": {"cache": {**SUBSPACE, "calibrate": "auto"}},
    "icc": {"cache": ICC},
    "icc on a line": {"cache": {**ICC, "anchor": "line", "attention": "forecast", "interval": 3}},
    "icc by layers": {"cache": {**ICC, "pattern": str(Path(__file__).with_name("pattern.yaml")), "anchor": "line"}},
    "int8 icc": {"quantize": INT8, "cache": ICC},
    "int4 compensated": {"quantize": COMPENSATED},
    "int4 compensated icc": {"quantize": COMPENSATED, "cache": ICC},
    "int4 compensated mixed": {"quantize": COMPENSATED, "cache": MIXED},
    "mixed": {"cache": MIXED},
    "firstblock": {"cache": {"method": "firstblock", "threshold": 0.6}},
    "fbcache": {"cache": {"method": "fbcache", "threshold": 0.6}},
    "taylorseer": {"cache": {"method": "taylorseer", "interval": 3}},
    "magcache": {"cache": {"method": "magcache", "ratios": [1.0, 1.01, 1.0, 0.99, 1.0]}},
    "int8qk": {"attention": {"method": "int8qk"}, "cache": {"method": "svdcache", "interval": 2}},
}


def stand(file: Path, stages: dict[str, Any], calibration: int = 2) -> Stack:
    """A tiny FLUX with these stages on it; fitted on the spot, or loaded where the file is there."""
    sampler = {"steps": STEPS, "size": "16x16"}
    prompts = ["a red star", "a blue ring", "a green square", "a white circle"][:calibration]
    data: dict[str, Any] = {"model": {"method": "flux", "device": "cpu"}, **stages, "sampler": sampler}
    if "calibrate" in data.get("cache", {}):
        data["cache"] = {**data["cache"], "factors": str(file)}
    return apply(tiny.flux(), Recipe.parse({**data, "calibration": prompts}, "passes"))


@contextmanager
def flops_of_passes(pipe: Pipe) -> Iterator[list[int]]:
    """What PyTorch's own counter says of every call of a transformer, as MACs; dense attention as plain products."""
    seen: list[int] = []
    before = {name: transformer.forward for name, transformer in pipe.transformers.items()}
    for transformer in pipe.transformers.values():
        transformer.requires_grad_(False)  # PyTorch's counter asks parameters among the inputs for their gradients

        def forward(*args: Any, run: Any = transformer.forward, **kwargs: Any) -> Any:
            with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
                out = run(*args, **kwargs)
            seen.append(counter.get_total_flops() // 2)
            return out

        transformer.forward = forward
    try:
        yield seen
    finally:
        for name, transformer in pipe.transformers.items():
            transformer.forward = before[name]


def macs_agree(stack: Stack, **more: Any) -> None:
    with flops_of_passes(stack.pipe) as seen:
        call(stack.pipeline, P, STEPS, output_type="latent", **more)
    records = stack.pipe.passes.records
    calls: dict[Any, list[int]] = {}  # rows that are due run again in the same call
    for record in records:
        calls.setdefault((record.step, record.branch), []).append(record.cost.macs)
    assert [sum(macs) for macs in calls.values()] == seen
    with stack.off(), flops_of_passes(stack.pipe) as full:
        call(stack.pipeline, P, STEPS, output_type="latent", **more)
    assert [record.full_cost.macs for record in records if record.full_cost.macs] == full
    assert [record.cost.macs for record in stack.pipe.passes.records] == full


@pytest.mark.parametrize("name", STACKS)
def test_macs_of_every_pass_are_those_of_pytorchs_own_counter_fitted_here_or_loaded(name: str, tmp_path: Path) -> None:
    file = tmp_path / "factors.safetensors"
    for _ in range(2):
        macs_agree(stand(file, STACKS[name]))
    if "fitted" in name or "icc" in name:
        assert file.is_file()


def test_macs_follow_the_size_and_the_number_of_pictures_and_a_second_guidance_pass(tmp_path: Path) -> None:
    stack = stand(tmp_path / "f", STACKS["firstblock"])
    for more in ({}, {"height": 32}, {"true_cfg_scale": 3.0}, {}):
        macs_agree(stack, **more)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_macs_of_a_full_pass_are_those_of_pytorchs_own_counter_in_every_family(family: str) -> None:
    stack = families.stand(family)
    with flops_of_passes(stack.pipe) as seen:
        families.make(stack, family, steps=2)
    assert [record.cost.macs for record in stack.pipe.passes.records] == seen != []


def test_a_report_says_the_same_in_the_process_that_calibrates_and_in_one_that_loads(tmp_path: Path) -> None:
    reports = []
    for _ in range(2):
        stack = stand(tmp_path / "f", STACKS["int4 compensated icc"], calibration=2)
        call(stack.pipeline, P[:1], STEPS, output_type="latent")
        reports.append(stack.report())
    fitted, loaded = reports
    assert (fitted.steps, fitted.macs, fitted.macs_ratio) == (loaded.steps, loaded.macs, loaded.macs_ratio)


def test_a_budget_is_kept_on_compensated_weights(tmp_path: Path) -> None:
    budget = {"method": "icc", "macs": 0.3, "attention": "reuse", "calibrate": "auto"}
    for _ in range(2):
        stack = stand(tmp_path / "f", {"quantize": COMPENSATED, "cache": budget})
        stack.sample(P)  # with as many tokens as it was calibrated on
        assert stack.pipe.passes.shares["calibrated"] == pytest.approx(0.3, abs=0.02)


def test_records_tell_what_was_planned_and_what_ran(tmp_path: Path) -> None:
    stack = stand(tmp_path / "f", STACKS["firstblock"])
    with block_runs(stack.pipe) as ran:
        call(stack.pipeline, P, STEPS, output_type="latent", true_cfg_scale=3.0)
    every, report = stack.pipe.passes.records, stack.report()
    records = [record for record in every if not record.again]
    assert [record.step for record in records] == [step for step in range(STEPS) for _ in range(2)]
    assert [record.planned for record in records] == ["full"] * 2 + ["undecided"] * (2 * STEPS - 2)
    assert {record.ran for record in records} == {"full", "reused"}
    assert {(record.transformer, record.rows) for record in records} == {("transformer", 2)}
    assert len({record.branch for record in records}) == 2
    blocks = blocks_of(stack.pipe)
    assert len(ran) == sum(blocks if record.ran == "full" else 1 for record in every)
    assert sum(report.steps.values()) == STEPS
    assert report.macs == sum(record.cost.macs for record in every)
    assert report.macs_ratio == report.macs / sum(record.full_cost.macs for record in records)


def test_a_pass_that_fails_leaves_no_record() -> None:
    pipe = Pipe(tiny.flux())

    def fail(_pipe: Any, step: int, *_: Any) -> dict[str, Any]:
        if step == 1:
            pipe.blocks["transformer"][0].module.register_forward_hook(_raise)
        return {}

    with pytest.raises(RuntimeError, match="out of memory"):
        call(pipe.pipeline, P, 4, callback_on_step_end=fail)
    assert [record.step for record in pipe.passes.records] == [0, 1]


def _raise(*_: Any) -> None:
    raise RuntimeError("out of memory")


@torch.no_grad()
def test_the_kind_of_a_pass_is_full_where_the_branch_missed_the_schedules_last_full_step() -> None:
    from ditstack.pipeline.clock import Clock
    from ditstack.pipeline.policy import StepPolicy

    clock = Clock()
    clock.total, clock.start = 6, 0
    policy = StepPolicy(clock, lambda steps: ("full", "forecast", "forecast") * 2)
    kinds = []
    for step, branch in ((0, "a"), (1, "a"), (1, "b"), (2, "b"), (3, "a"), (4, "b"), (5, "b"), (5, "a")):
        clock.step, clock.branch = step, branch
        kinds.append(policy.kind())
        policy.end(kinds[-1])
    assert kinds == ["full", "forecast", "full", "forecast", "full", "full", "forecast", "forecast"]


def test_what_calibration_computes_while_it_looks_on_is_not_counted() -> None:
    pipe = Pipe(tiny.flux())
    call(pipe.pipeline, P, 2)
    plain = pipe.passes.macs

    def look(_name: str, x: torch.Tensor, _y: torch.Tensor) -> None:
        _ = x.flatten(0, -2).mT @ x.flatten(0, -2)

    with seeing(find_linears(pipe), look):
        call(pipe.pipeline, P, 2)
    assert pipe.passes.macs == plain
