"""Launches of kernels and waits for the GPU in each kind of step, of every recipe for a GPU.

    python benchmarks/launches.py [RECIPE ...]

Each recipe stands on its family's tiny pipeline, of two or three blocks a kind, on a CUDA device that is not there (see
fake_gpu.py), so that nothing of this depends on a machine. What is compiled is counted as it is written: compiling
fuses it. Writes benchmarks/results/<machine>_<date>/launches.json.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from ditstack.assembly.build import build
from ditstack.compat import hush, hush_loading
from ditstack.pipeline.discovery import trace
from ditstack.pipeline.pipe import Pipe
from ditstack.recipe.layers import shelf_names
from ditstack.recipe.plan import forced
from ditstack.recipe.recipe import Recipe
from ditstack.testing import tiny_pipelines as tiny
from fake_gpu import Counted, counting, move, moved
from gpu_timing import random_factors
from results import write

STEPS = 9
FAMILY = {
    "hunyuanvideo": "hunyuan_video", "qwenimage": "qwen_image", "cogvideox": "cogvideo", "zimage": "z_image",
    "hunyuanvideo15": "hunyuan_video_15", "flux2-klein": "flux2_klein", "qwenimage-edit": "qwen_image_edit",
    "wan-i2v": "wan_i2v", "wan-5b": "wan_5b",
}  # fmt: skip
"""The tiny pipeline of a recipe's model, or of that and its last word, where it has another name."""
LEFT_OUT: dict[str, Any] = {"distill": None, "compile": None}
"""Stages that launch nothing of their own: a LoRA is fused, a sampler changes no pass, and compiling fuses."""
UNFAKED = "bitsandbytes"
"""A backend whose tensors cannot be fake: weights are counted as they are before."""


def main() -> None:
    hush()
    hush_loading()
    rows = [row(name) for name in sys.argv[1:] or gpu_recipes()]
    write("launches", {"steps": STEPS, "rows": rows})


def gpu_recipes() -> list[str]:
    """The shelf's recipes that accelerate something on a GPU."""
    named = [name for name in shelf_names() if not name.startswith("tiny") and "-" in name]
    return [name for name in named if len(Recipe.read(name).adapters) > 1]


def row(name: str) -> dict[str, Any]:
    """A recipe's launches and waits by kind of step, and what a generation waits for besides."""
    whole = Recipe.read(name)
    rounds = whole.adapters.get("quantize")
    unfaked = {"quantize": None} if rounds is not None and rounds.method == UNFAKED else {}
    made = tiny.FAMILIES[_family(whole.model.method, name)]()
    given = {"arguments": tiny._of_class(type(made).__name__, 1)} if whole.model.traced else {}
    recipe = whole.with_(name, **LEFT_OUT, **unfaked, model=given)
    encoded = _encoded(made)
    found = trace(made, recipe.model.arguments) if recipe.model.traced else None
    told = mock.patch("ditstack.pipeline.discovery.trace", return_value=found)  # a fake tensor shows no block
    with told, counting() as counted, standing_in(counted), torch.no_grad():
        for part in made.components.values():
            if isinstance(part, torch.nn.Module):
                move(part.to(torch.bfloat16))
        if encoded is not None:
            made.encode_prompt = lambda *_, **__: _half(moved(encoded))
        with forced():
            pipe = build(recipe, made)
        _fit(pipe, recipe)
        return {
            "recipe": name,
            "weights": "not rounded" if unfaked else "as they are",
            **_steps(pipe, counted, lambda: _call(made)),
        }


def _family(method: str, name: str) -> str:
    tasked = FAMILY.get(f"{method}-{name.rpartition('-')[2]}")
    return tasked or FAMILY.get(method, method)


def _steps(pipe: Pipe, counted: Counted, generate: Any) -> dict[str, Any]:
    books: list[tuple[int, int]] = []

    def open_books() -> None:
        counted.launches = counted.waits = 0

    def tick(_done: int, _steps: int) -> None:
        books.append((counted.launches, counted.waits))
        open_books()

    pipe.clock.on_edge.append(open_books)
    pipe.clock.on_tick.append(tick)
    generate()
    kinds: dict[str, dict[str, int]] = {}
    for kind, (launches, waits) in zip(pipe.passes.by_step.values(), books, strict=False):
        kinds[kind] = {"launches": launches, "waits": waits}  # the last of a kind stands: nothing is looked at first
    once = sum(waits for _, waits in books) - sum(kinds[kind]["waits"] for kind in pipe.passes.by_step.values())
    return {"steps": kinds, "waits_once": once}


def _encoded(pipeline: Any) -> Any:
    """What the pipeline's text encoders make of a prompt, for a look at shapes."""
    if not hasattr(pipeline, "encode_prompt"):
        return None
    found: list[Any] = []
    encode = type(pipeline).encode_prompt

    def noting(self: Any, *args: Any, **kwargs: Any) -> Any:
        found.append(encode(self, *args, **kwargs))
        return found[-1]

    with mock.patch.object(type(pipeline), "encode_prompt", noting), torch.inference_mode():
        _call(pipeline, 2)
    return found[0]


def _call(pipeline: Any, steps: int = STEPS) -> None:
    if not hasattr(pipeline, "encode_prompt"):  # DiT has no latents to give; what it decodes costs no step
        decoded = SimpleNamespace(sample=torch.zeros(1, 3, 8, 8))
        with mock.patch.object(pipeline.vae, "decode", return_value=decoded):
            pipeline(class_labels=[1], num_inference_steps=steps)
        return
    tiny.call(pipeline, ["a cat"], steps, output_type="latent")


def _half(tree: Any) -> Any:
    from torch.utils._pytree import tree_map_only

    return tree_map_only(torch.Tensor, lambda one: one.bfloat16() if one.is_floating_point() else one, tree)


def _fit(pipe: Pipe, recipe: Recipe) -> None:
    """Factors of the sizes that calibration would find."""
    cache, attention = recipe.adapters.get("cache"), recipe.adapters.get("attention")
    if cache is not None and cache.wants_factors:
        cache.take(pipe, random_factors(pipe, None, getattr(cache, "rank", 0.125), lambda: _call(pipe.pipeline, 2)))
    if attention is not None and attention.wants_factors:
        sites = [f"{stage}.{block.name}.attn" for stage, blocks in pipe.blocks.items() for block in blocks]
        kernel: Any = pipe.attention
        kernel.kernel.shares = {site: torch.full((2,), 0.5, device="cuda") for site in sites}


@contextmanager
def standing_in(counted: Counted) -> Iterator[None]:
    """Inside, kernels that a machine without a GPU lacks are one launch each."""

    def one(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> Any:
        counted.launches += 1
        return q.new_empty(*q.shape[:-1], v.shape[-1])

    def product(a: Any, b: Any) -> Any:
        return torch.empty(a.shape[0], b.shape[1], dtype=torch.int32, device=a.device)

    with ExitStack() as stack:
        for place, stand_in in {
            "torchao.kernel.intmm.safe_int_mm": product,
            "ditstack.assembly.build.check_stages": lambda *_: None,  # it would find no plain weights
            "ditstack.assembly.build.sketch": lambda *_: object(),
            "ditstack.attention.rivals.Fastest._choose": lambda *_: "native",
            "ditstack.attention.sparse.attend": one,
            "ditstack.attention.sparse.leading_text": lambda *_: 0,  # FLUX's 512 + 4096 tokens fill whole blocks
            "ditstack_adapters.attention.sage._sage": lambda: one,
            "ditstack_adapters.attention.sage._installed": _sage_1,
            "torchao.quantization.quant_api._check_hardware_support": lambda *_: None,
        }.items():
            stack.enter_context(mock.patch(place, stand_in))
        yield


def _sage_1() -> Any:
    from ditstack_adapters.attention.sage import attend_1

    return attend_1


if __name__ == "__main__":
    main()
