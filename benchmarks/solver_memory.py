"""What the gradient of a fitted sampler holds and computes, on a 12-block FLUX of width 768 with 1,100 tokens.

    python benchmarks/solver_memory.py [--evaluations 9]

Bytes are those of tensors alive on the CPU, weights left out, counted from outside; multiply-adds by PyTorch's counter.
Writes benchmarks/results/<machine>_<date>/solver_memory.json. Nothing here depends on how fast the machine is.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ditstack import Recipe
from ditstack.assembly.build import build
from ditstack.calibration import trajectories
from ditstack.calibration.trajectories import differentiable
from ditstack.maths.multistep import Method, adams_bashforth
from ditstack.pipeline.fitted_scheduler import FLOW, FittedMultistepScheduler
from ditstack.pipeline.pipe import Pipe
from ditstack.testing.allocated import Allocated
from models import embeddings, flux
from results import write

WIDTH, DOUBLE, SINGLE, TEXT_TOKENS, PIXELS = 768, 4, 8, 76, 512
TOKENS = TEXT_TOKENS + (PIXELS // 16) ** 2


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluations", type=int, default=9)
    count = parser.parse_args().evaluations
    data = {"model": {"method": "flux", "device": "cpu"}, "sampler": {"steps": count, "size": f"{PIXELS}x{PIXELS}"}}
    pipeline = flux(WIDTH, DOUBLE, SINGLE)
    pipe = build(Recipe.parse(data, "flux-random"), pipeline)
    weights = sum(one.numel() for one in pipeline.transformer.parameters())
    assert weights > trajectories.LARGE, "blocks are run again one by one"
    plain_flops, plain = forward(pipe)
    given = arguments_of_a_pass(pipe)
    row = {"evaluations": count, "parameters": weights, "tokens": TOKENS, "width": WIDTH, "blocks": DOUBLE + SINGLE}
    row |= {"latent_bytes": plain.numel() * plain.element_size(), "forward_flops": plain_flops}
    with FlopCounterMode(display=False) as flops:  # it holds on to what a gradient goes through: a run of its own
        single(pipe, given)
    row |= {"one_flops": flops.get_total_flops(), "one_bytes": most_bytes(lambda: single(pipe, given))}
    write("solver_memory", {**row, "fit_bytes": most_bytes(lambda: fit(pipe, count))})


def most_bytes(run: Callable[[], Any]) -> int:
    """The most bytes alive while something runs."""
    with Allocated("cpu") as allocated:
        run()
    return allocated.peak


def forward(pipe: Pipe) -> tuple[int, Tensor]:
    """Operations of one evaluation without a gradient, and its answer."""
    given = arguments_of_a_pass(pipe)
    with torch.no_grad(), FlopCounterMode(display=False) as flops:
        out = pipe.transformers["transformer"](**given)[0]
    return flops.get_total_flops(), out


def single(pipe: Pipe, given: dict[str, Any]) -> None:
    """One evaluation and its gradient, blocks run again one by one."""
    given["hidden_states"].requires_grad_()
    with differentiable(pipe):
        pipe.transformers["transformer"](**given)[0].square().mean().backward()


def fit(pipe: Pipe, count: int) -> None:
    """The gradient of one iteration of a fit: all evaluations of one prompt, in closed loop."""
    nodes = torch.linspace(1, 0, count + 1)
    parts = [1000 * nodes[:-1], nodes, adams_bashforth(nodes, 2)]
    method = Method(*(one.clone().requires_grad_() for one in parts))
    with differentiable(pipe):
        sampled(pipe, FittedMultistepScheduler.of(method, FLOW), count).square().mean().backward()
    assert method.coefficients.grad is not None


def arguments_of_a_pass(pipe: Pipe) -> dict[str, Any]:
    """What the pipeline gives its transformer at the first step."""
    seen: list[dict[str, Any]] = []

    def hear(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        seen.append({name: one.detach().clone() if torch.is_tensor(one) else one for name, one in kwargs.items()})

    handle = pipe.transformers["transformer"].register_forward_pre_hook(hear, with_kwargs=True)
    nodes = torch.tensor([1.0, 0.0])
    try:
        with torch.no_grad():
            method = Method(1000 * nodes[:-1], nodes, adams_bashforth(nodes, 1))
            sampled(pipe, FittedMultistepScheduler.of(method, FLOW), 1)
    finally:
        handle.remove()
    return seen[0]


def sampled(pipe: Pipe, scheduler: Any, count: int) -> Tensor:
    """Final latents of one prompt, with their graph where one is wanted."""
    pipeline = pipe.pipeline
    given = embeddings(pipeline, TEXT_TOKENS) | {"height": PIXELS, "width": PIXELS, "num_inference_steps": count}
    with pipe.sampled_by(scheduler):
        return inspect.unwrap(type(pipeline).__call__)(pipeline, **given, return_dict=False)[0]


if __name__ == "__main__":
    main()
