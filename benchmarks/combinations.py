"""Every model family x quantizer x attention x cache on tiny pipelines: ran with right counters, refused, or failed.

    python benchmarks/combinations.py [--families flux wan] [--log /tmp/cells.log]

Writes benchmarks/results/<machine>_<date>/combinations.json: a sentence for each cell, made of what was counted. A cell
whose counters are wrong, or that raises what is no refusal, is `failed`. With --log a run that was cut off goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))

from counting import block_runs, blocks_of
from ditstack.assembly.sample import Pictures
from ditstack.compat import hush_loading
from ditstack.errors import Incompatible
from ditstack.stack import Stack
from families import MODELS, make, stand, steps_of
from results import write

QUANTIZE: dict[str, dict[str, Any]] = {
    "none": {},
    "int8": {"method": "torchao", "scheme": "int8"},
    "int8dq": {"method": "torchao", "scheme": "int8dq"},
    "int4": {"method": "torchao", "scheme": "int4"},
    "nf4": {"method": "bitsandbytes", "scheme": "nf4"},
    "fp8": {"method": "torchao", "scheme": "fp8"},
}
ATTENTION: dict[str, dict[str, Any]] = {
    "native": {"method": "native"},
    "int8qk": {"method": "int8qk"},
    "sparse": {"method": "sparse", "keep": 0.5, "block_size": 4},
}
CACHE: dict[str, dict[str, Any]] = {
    "none": {},
    "reuse": {"method": "reuse", "interval": 2},
    "svdcache": {"method": "svdcache", "interval": 2},
}
SKIPPED = {"none": "", "reuse": "reused", "svdcache": "forecast"}
WORDS = list(product(QUANTIZE, ATTENTION, CACHE))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--log", type=Path, help="a file that each cell is added to; cells in it are not run again")
    wanted = parser.parse_args()
    hush_loading()
    torch.set_num_threads(1)
    cells = _logged(wanted.log)
    for family in wanted.families:
        plain = Plain(family)
        for words in WORDS:
            name = " ".join((family, *words))
            if name not in cells:
                cells[name] = cell(plain, *words)
                print(f"{name}: {cells[name]}", flush=True)
                if wanted.log:
                    with wanted.log.open("a") as log:
                        log.write(f"{name}: {cells[name]}\n")
    names = [" ".join((family, *words)) for family in MODELS for words in WORDS]
    write("combinations", {"cells": {name: cells[name] for name in names if name in cells}})


def _logged(log: Path | None) -> dict[str, str]:
    lines = log.read_text().splitlines() if log and log.is_file() else []
    return dict(line.split(": ", 1) for line in lines)  # pyright: ignore[reportReturnType]


class Plain:
    """A family without a cache, its quantized and attention baselines among them: what each cell is compared with."""

    def __init__(self, family: str) -> None:
        self.family = family
        self.linears = dict(linears(stand(family)))
        self._latents: dict[tuple[str, str], torch.Tensor] = {}
        stack = stand(family)
        with counted_attention(stack) as calls:
            self.latents = make(stack, family).latents
        self.macs = stack.pipe.passes.macs
        self.attentions = len(calls) // stack.pipe.passes.kinds["full"]
        """Calls of attention that one pass of a transformer makes in its blocks."""

    def uncached(self, quantize: str, attention: str) -> torch.Tensor:
        """The latents of the same weights and attention without a cache."""
        if (quantize, attention) not in self._latents:
            made = make(stood(self.family, quantize, attention, "none"), self.family)
            self._latents[quantize, attention] = made.latents
        return self._latents[quantize, attention]


def stood(family: str, quantize: str, attention: str, cache: str) -> Stack:
    """A family's tiny pipeline with one combination on it."""
    chosen = {"quantize": QUANTIZE[quantize], "attention": ATTENTION[attention], "cache": CACHE[cache]}
    return stand(family, **{stage: fields for stage, fields in chosen.items() if fields})


def cell(plain: Plain, quantize: str, attention: str, cache: str) -> str:
    """What happened to one combination, in a sentence that begins with ran, refused or failed."""
    try:
        stack = stood(plain.family, quantize, attention, cache)
        with block_runs(stack.pipe) as blocks:
            made = make(stack, plain.family)
        told = counted(stack, made, len(blocks))
        wrong = [*_wrong_counts(stack, made, plain, len(blocks), SKIPPED[cache]), *_wrong_stages(stack, made, plain)]
        if cache != "none":
            wrong += _wrong_off(stack, plain.family, plain.uncached(quantize, attention))
    except Incompatible as refusal:
        return f"refused: {'; '.join(refusal.reasons)}"
    except Exception as error:  # a crash is what this benchmark looks for
        return f"failed: {type(error).__name__}: {' '.join(str(error).split())}"
    return f"failed: {'; '.join(wrong)}" if wrong else f"ran: {told}"


def counted(stack: Stack, made: Pictures, blocks: int) -> str:
    """The counters of a generation."""
    steps = " + ".join(f"{count} {kind}" for kind, count in made.steps.items())
    ran = dict(stack.pipe.attention.ran) if stack.pipe.attention else {}
    replaced = f", {ran.pop('kernel', 0)} attentions replaced" if ran else ""
    left = "".join(f", {count} left to PyTorch because {reason}" for reason, count in sorted(ran.items()))
    return f"{steps} steps, {blocks} blocks, {len(rounded(stack))} linears rounded{replaced}{left}"


def _wrong_counts(stack: Stack, made: Pictures, plain: Plain, blocks: int, word: str) -> Iterator[str]:
    """What the counters say that cannot be."""
    pipe, want = stack.pipe, steps_of(plain.family, word)
    full = pipe.passes.kinds["full"]
    if made.steps != want:
        yield f"steps {made.steps}, wanted {want}"
    each = blocks_of(pipe) // len(pipe.transformers)
    if blocks != full * each:
        yield f"{blocks} blocks ran, wanted {each} in each of {full} full passes"
    if (stack.report(made).macs_ratio < 1) != bool(word):
        yield f"{stack.report(made).macs_ratio:.2f} of the multiplications were made"
    if pipe.attention and sum(pipe.attention.ran.values()) != full * plain.attentions:
        yield f"attentions {dict(pipe.attention.ran)}, wanted {plain.attentions} in each of {full} full passes"


def _wrong_stages(stack: Stack, made: Pictures, plain: Plain) -> Iterator[str]:
    """What the stages did not do."""
    adapters, attention = stack.recipe.adapters, stack.pipe.attention
    quantizer: Any = adapters.get("quantize")
    taken = {name for name, linear in plain.linears.items() if quantizer and quantizer.takes(linear, name)}
    if rounded(stack) != taken:
        yield "the linears that are rounded are not those that the quantizer takes"
    thinned = stack.pipe.passes.macs < plain.macs  # the four tokens of Qwen's picture are one block: it stays
    kernel = attention and attention.ran["kernel"] and (adapters["attention"].rounds_activations or thinned)
    acted = bool(quantizer or "cache" in adapters or kernel)
    if torch.equal(made.latents, plain.latents) == acted:
        yield "the pictures equal the plain ones" if acted else "the pictures differ from the plain ones"


def _wrong_off(stack: Stack, family: str, uncached: torch.Tensor) -> list[str]:
    """What a cache that is switched off leaves behind."""
    with stack.off():
        made = make(stack, family)
    same = torch.equal(made.latents, uncached) and set(made.steps) == {"full"}
    return [] if same else ["switched off, the cache still changes the pictures"]


def rounded(stack: Stack) -> set[str]:
    """The linears of the blocks whose weights are no plain floating-point tensors."""
    return {name for name, linear in linears(stack) if not _plain(linear.weight)}


def linears(stack: Stack) -> Iterator[tuple[str, torch.nn.Linear]]:
    """The linears of the blocks, by name."""
    for stage, blocks in stack.pipe.blocks.items():
        for block in blocks:
            for name, module in block.module.named_modules():
                if isinstance(module, torch.nn.Linear):
                    yield f"{stage}.{block.name}.{name}", module


def _plain(weight: Any) -> bool:
    return weight.is_floating_point() and not hasattr(weight, "__tensor_flatten__")


@contextmanager
def counted_attention(stack: Stack) -> Iterator[list[str]]:
    """The calls of scaled dot-product attention that the blocks make themselves, whatever ditstack counts."""
    calls: list[str] = []
    within: list[str] = []
    handles = []
    for blocks in stack.pipe.blocks.values():
        for block in blocks:
            handles.append(block.module.register_forward_pre_hook(lambda *_, name=block.name: within.append(name)))
            handles.append(block.module.register_forward_hook(lambda *_: within.clear()))

    class Count(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.nn.functional.scaled_dot_product_attention:
                calls.extend(within)
            return func(*args, **(kwargs or {}))

    try:
        with Count():
            yield calls
    finally:
        for handle in handles:
            handle.remove()


if __name__ == "__main__":
    main()
