"""ICC: exact where it must be, lean, and the big linears really rest on calibrated steps."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ditstack import apply
from ditstack.caching.linears import LowRankLinears, find_linears
from ditstack.errors import BadFile, BadPipeline, RecipeError, StaleFactors
from ditstack.pipeline.pipe import Pipe
from ditstack.recipe.recipe import Recipe
from ditstack.stack import Stack
from ditstack.testing import tiny_pipelines as tiny
from ditstack.testing.tiny_pipelines import call

P = ["a red circle", "a blue star"]
STEPS = 6


def stand(
    family: str = "flux", home: Path | None = None, quantize: dict[str, Any] | None = None, **fields: Any
) -> Stack:
    """A tiny pipeline with ICC on it, fitted on the spot."""
    cache = {"method": "icc", "calibrate": "auto", **fields}
    if home is not None:
        cache["factors"] = str(home / "icc.safetensors")
    data: dict[str, Any] = {"model": {"method": "flux", "device": "cpu"}, "cache": cache}
    if quantize is not None:
        data["quantize"] = quantize
    sampler = {"steps": STEPS, "size": "16x16"}
    recipe = Recipe.parse({**data, "sampler": sampler, "calibration": ["a red star", "a blue ring"]}, "icc")
    return apply(tiny.FAMILIES[family](), recipe)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DITSTACK_HOME", str(tmp_path))


@contextmanager
def products(pipe: Pipe) -> Iterator[Counter[str]]:
    """How often each linear's own product was made."""
    seen: Counter[str] = Counter()
    whose = {id(linear.weight): name for name, linear in find_linears(pipe).items()}

    class Products(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.nn.functional.linear and id(args[1]) in whose:
                seen[whose[id(args[1])]] += 1
            return func(*args, **(kwargs or {}))

    with Products():
        yield seen


def run(stack: Stack, prompts: list[str] = P, **more: Any) -> Tensor:
    return call(stack.pipeline, prompts, STEPS, output_type="latent", **more)


def gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("by", ["svd", "ca", "cd", "rrr", "rrr_observed"])
def test_at_full_rank_it_is_the_plain_pipe(by: str) -> None:
    stack = stand(rank=1.0, factors_by=by, interval=3)
    with stack.off():
        plain = run(stack, true_cfg_scale=3.0)
    # what an observed map saw on the uncached run does not hold exactly on the cached one
    assert gap(run(stack, true_cfg_scale=3.0), plain) < (5e-3 if by == "rrr_observed" else 1e-4)
    assert stack.pipe.passes.steps == {"full": 2, "calibrated": 4}


@pytest.mark.parametrize("family", ["sd3", "wan", "hunyuan_video", "qwen_image", "pixart", "dit"])
def test_at_full_rank_it_is_the_plain_pipe_in_every_family(family: str) -> None:
    from ditstack.calibration.statistics import LinearSurvey, seeing
    from ditstack.maths.lowrank import truncate
    from ditstack.weights.dense import dense
    from ditstack_adapters.cache.icc import Icc

    pipe = Pipe(tiny.FAMILIES[family]())
    Icc(interval=2).apply(pipe)
    survey, linears = LinearSurvey(), find_linears(pipe)
    with pipe.without_cache(), seeing(linears, survey):
        plain = call(pipe.pipeline, P, 4)
    tensors: dict[str, Tensor] = {}
    for members in survey.groups():
        pairs = {name: truncate(dense(linears[name])) for name in members}
        tensors |= {f"{name}.up": pair.up for name, pair in pairs.items()}
        tensors["+".join(members) + ".down"] = torch.cat([pair.down for pair in pairs.values()])
    LowRankLinears.on(pipe).take(tensors)
    assert gap(call(pipe.pipeline, P, 4), plain) < 1e-3
    assert pipe.passes.kinds["calibrated"] > 0


def test_at_interval_one_it_is_the_plain_pipe_and_wants_no_factors() -> None:
    stack = stand(interval=1)
    with stack.off():
        plain = run(stack)
    assert torch.equal(run(stack), plain)
    assert not stack.recipe.adapters["cache"].wants_factors


@pytest.mark.parametrize("rank", [0.125, 0])
def test_the_big_linears_rest_on_calibrated_steps_in_both_guidance_passes(rank: float) -> None:
    stack = stand(rank=rank)
    with products(stack.pipe) as ran:
        run(stack, true_cfg_scale=3.0)
    modulation = {name: count for name, count in ran.items() if "norm" in name}
    others = {name: count for name, count in ran.items() if "norm" not in name}
    assert set(modulation.values()) == {2 * STEPS}
    assert set(others.values()) == {2 * STEPS // 2}
    assert stack.pipe.passes.kinds == {"full": 6, "calibrated": 6}


def test_calibrated_steps_cost_their_products_and_attention_only() -> None:
    stack = stand(rank=0)
    run(stack)
    reused = stack.report().macs_ratio
    stack = stand(rank=0.125)
    run(stack)
    ratio = stack.report().macs_ratio
    # half of the steps are full; on the others each linear costs r (I + O) of I O, r = min(I, O) / 8
    assert reused < ratio < reused + 0.5 * 0.25
    assert ratio < 0.75


def test_the_lean_form_equals_its_plain_twin_and_keeps_less() -> None:
    stack = stand(rank=0.25)
    store = LowRankLinears.on(stack.pipe)
    sizes: list[int] = []
    stack.pipe.clock.on_tick.append(lambda *_: sizes.append(kept(store)))
    lean = run(stack, true_cfg_scale=3.0)
    lean_size = max(sizes)
    store.lean = False
    sizes.clear()
    torch.testing.assert_close(run(stack, true_cfg_scale=3.0), lean, rtol=1e-4, atol=1e-5)
    assert lean_size < max(sizes)


def test_it_keeps_at_most_nine_widths_and_six_ranks_for_each_token_and_block() -> None:
    stack = stand(rank=8, factors_by="svd")
    transformer = stack.pipe.transformers["transformer"]
    sizes: list[int] = []
    stack.pipe.clock.on_tick.append(lambda *_: sizes.append(kept(LowRankLinears.on(stack.pipe))))
    tokens: list[int] = []
    rows = stack.pipe.blocks["transformer"][-1].module.register_forward_pre_hook(
        lambda _module, args, kwargs: tokens.append(
            sum(one.shape[1] for name, one in kwargs.items() if "hidden" in name)
        ),
        with_kwargs=True,
    )
    run(stack, P[:1])
    rows.remove()
    width = transformer.config.num_attention_heads * transformer.config.attention_head_dim  # pyright: ignore
    blocks = len(stack.pipe.blocks["transformer"])
    assert 0 < max(sizes) <= tokens[0] * blocks * (9 * width + 6 * 8)


def kept(store: Any) -> int:
    tensors = [one for memory in store.memories.values() for one in memory.tensors()]
    return sum({one.data_ptr(): one.numel() for one in tensors}.values())


def test_linears_that_share_an_input_share_one_product() -> None:
    stack = stand(rank=0.125)
    assert stack.factors is not None
    groups = {tuple(part.rpartition(".")[2] for part in name.removesuffix(".down").split("+"))
              for name in stack.factors.tensors if name.endswith(".down")}  # fmt: skip
    assert ("to_q", "to_k", "to_v") in groups
    assert ("add_q_proj", "add_k_proj", "add_v_proj") in groups
    assert ("proj_mlp", "to_q", "to_k", "to_v") in groups


def test_nothing_is_kept_between_generations_and_each_starts_afresh() -> None:
    stack = stand(rank=0.125, interval=3)
    want = run(stack)
    store = LowRankLinears.on(stack.pipe)
    assert store.memories == {}

    def fail(_pipe: Any, step: int, *_: Any) -> dict[str, Any]:
        if step == 4:
            raise RuntimeError("stop here")
        return {}

    with pytest.raises(RuntimeError, match="stop here"):
        run(stack, callback_on_step_end=fail)
    run(stack, P[:1])
    assert torch.equal(run(stack), want)


def test_an_item_alone_equals_the_item_in_a_batch() -> None:
    stack = stand(rank=0.125)
    together, alone = run(stack), run(stack, P[:1])
    assert float((together[:1] - alone).abs().max()) <= 1e-5 * max(1.0, float(together.abs().max()))


def test_regression_is_nearer_to_the_plain_pipe_than_truncation() -> None:
    gaps = {}
    for by in ("svd", "rrr"):
        stack = stand(rank=0.125, factors_by=by, interval=3)
        with stack.off():
            plain = run(stack)
        gaps[by] = gap(run(stack), plain)
    assert gaps["rrr"] < 0.7 * gaps["svd"]


@pytest.mark.parametrize("scheme", ["int8", "int4", "int8dq"])
def test_on_rounded_weights_it_is_fitted_to_what_runs(scheme: str) -> None:
    stack = stand(quantize={"method": "torchao", "scheme": scheme}, rank=1.0)
    with stack.off():
        rounded = run(stack)
    assert gap(run(stack), rounded) < (2e-2 if scheme == "int8dq" else 1e-4)


@pytest.mark.parametrize(("method", "scheme"), [("torchao", "int3"), ("bitsandbytes", "nf4")])
def test_compensation_brings_rounded_weights_nearer_and_is_part_of_what_icc_corrects(method: str, scheme: str) -> None:
    plain = call(tiny.flux(), P, STEPS, output_type="latent")
    gaps = {}
    for rank in (None, 0.25):
        quantize = {"method": method, "scheme": scheme, **({"compensate": rank} if rank else {})}
        stack = stand(quantize=quantize, rank=1.0)
        with stack.off():
            uncached = run(stack)
        gaps[rank] = gap(uncached, plain)
        assert gap(run(stack), uncached) < 1e-3
    assert gaps[0.25] < 0.8 * gaps[None]


def test_factors_survive_and_stale_ones_are_refused(tmp_path: Path) -> None:
    quantize = {"method": "torchao", "scheme": "int4", "compensate": 0.125}
    want = run(stand(home=tmp_path, quantize=quantize))
    again = stand(home=tmp_path, quantize=quantize, calibrate="never")
    assert torch.equal(run(again), want)
    with pytest.raises(StaleFactors, match="another cache;"):
        stand(home=tmp_path, quantize=quantize, calibrate="never", rank=0.25)
    with pytest.raises(StaleFactors, match="another quantize;"):
        stand(home=tmp_path, quantize={**quantize, "scheme": "int3"}, calibrate="never")
    with pytest.raises(BadFile, match="there is no factors file"):
        stand(home=tmp_path / "nowhere", calibrate="never")


def test_a_budget_is_kept_and_one_below_attention_is_refused() -> None:
    stack = stand(macs=0.6)
    stack.sample(P)  # with as many tokens as it was calibrated on
    shares = stack.pipe.passes.shares
    assert 0.59 < shares["calibrated"] <= 0.6
    assert shares["full"] > 1  # full steps also project what the others need
    with pytest.raises(BadPipeline, match=r"takes 0.* already"):
        stand(macs=0.01)
    with pytest.raises(RecipeError, match="macs needs factors_by: rrr"):
        stand(macs=0.4, factors_by="svd")


def test_attention_that_rests_leaves_its_share_of_the_budget_to_corrections() -> None:
    stack = stand(macs=0.3, attention="reuse")
    stack.sample(P)
    assert 0.28 < stack.pipe.passes.shares["calibrated"] <= 0.3
    assert stack.report().notes == []
    run(stack, max_sequence_length=2)  # fewer tokens than it was calibrated on
    (note,) = stack.report().notes
    assert re.match(r"calibrated steps took 0\.\d\d of a full step's MACs, and the budget is 0\.30", note)


def test_half_precision_keeps_small_changes() -> None:
    from ditstack.caching.corrections import project

    x, down = torch.randn(2, 5, 64), torch.randn(8, 64)
    coarse = project(x.bfloat16(), down.bfloat16())
    assert coarse.dtype == torch.float32
    torch.testing.assert_close(coarse, x.bfloat16().float() @ down.bfloat16().float().mT)
