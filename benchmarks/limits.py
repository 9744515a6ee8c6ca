"""The floor under a step: what it must multiply and move, at the rates that this device reaches at its best.

    python benchmarks/limits.py tiny-int8-native-svdcache [--set sampler.steps=8]

An operation takes at least 2 MACs / (products a second) and bytes / (bytes copied a second), whichever is longer; the
floor is the sum over linears and attention, since everything else can ride along, and for a forecast step what the
cache keeps is read once besides. Ceilings are the fastest of several trials of a large product and a large copy.
Writes benchmarks/results/<machine>_<date>/limits.json.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ditstack import Recipe, load
from ditstack.assembly.sample import sample
from ditstack.compat import hush_loading
from ditstack.pipeline.clock import now
from ditstack.pipeline.macs import MacCounter
from ditstack.pipeline.pipe import Pipe
from results import write

TRIALS = 7
ATTENTION = {scaled_dot_product_attention, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm}
"""Products of two activations."""


@dataclass
class Ceilings:
    """Of one device: floating-point (or integer) operations a second by dtype, and bytes a second."""

    products: dict[str, float]
    bytes: float

    def seconds(self, macs: int, moved: int, dtype: str) -> float:
        """The least time of one operation."""
        return max(2 * macs / self.products.get(dtype, self.products["float32"]), moved / self.bytes)


@dataclass
class Part:
    """The linears, attention, or the rest of a step."""

    macs: int = 0
    bytes: int = 0
    seconds: float = 0.0


@dataclass
class Step:
    """One kind of step. `rest` is what plain PyTorch moves besides, and no part of the floor."""

    linears: Part = field(default_factory=Part)
    attention: Part = field(default_factory=Part)
    rest: Part = field(default_factory=Part)
    kept: int = 0
    """Bytes that a forecast reads from the cache."""
    floor: float = 0.0
    """Seconds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--set", dest="changes", nargs="*", default=[])
    wanted = parser.parse_args()
    hush_loading()
    recipe = Recipe.read(wanted.recipe, wanted.changes)
    stack = load(recipe)
    device = ceilings(stack.pipe.device)
    steps = floors(stack.pipe, lambda: sample(stack.pipe, recipe.prompts[:1], [0], recipe.sampler), device)
    for kind, step in steps.items():
        print(f"{kind:12s} floor {step.floor:.6f} s: {asdict(step)}")
    figures = {kind: asdict(step) for kind, step in steps.items()}
    write("limits", {"recipe": recipe.resolved(), "ceilings": asdict(device), "steps": figures})


def ceilings(device: torch.device) -> Ceilings:
    """What this device reaches now; other work on it makes them lower, and the floors higher."""
    size = 8192 if device.type == "cuda" else 1024
    dtypes = [torch.float32, torch.bfloat16, torch.int8]
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9):
        dtypes.append(torch.float8_e4m3fn)
    fastest = {str(dtype).removeprefix("torch."): _fastest(_product(dtype, size, device)) for dtype in dtypes}
    source = torch.randn(2**28 if device.type == "cuda" else 2**25, device=device)
    target = torch.empty_like(source)
    moved = 2 * source.numel() * source.element_size()
    return Ceilings(
        {name: 2 * size**3 / seconds for name, seconds in fastest.items()},
        moved / _fastest(lambda: target.copy_(source)),
    )


def _product(dtype: torch.dtype, size: int, device: torch.device) -> Callable[[], Any]:
    a, b = random(size, dtype, device), random(size, dtype, device).T
    if dtype == torch.int8:
        return lambda: torch._int_mm(a, b)
    if dtype == torch.float8_e4m3fn:
        one = torch.ones((), device=device)
        return lambda: torch._scaled_mm(a, b, one, one, out_dtype=torch.bfloat16, use_fast_accum=True)
    return lambda: a @ b


def random(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Square and random: a GPU multiplies equal numbers with less power, and so faster, than a model's."""
    if dtype == torch.int8:
        return torch.randint(-127, 128, (size, size), device=device, dtype=dtype)
    return torch.randn(size, size, device=device).to(dtype)


def _fastest(run: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(TRIALS):
        started = now()
        run()
        seconds.append(now() - started)
    return min(seconds)


def floors(pipe: Pipe, generate: Callable[[], Any], device: Ceilings) -> dict[str, Step]:
    """The floor of every kind of step in one generation, which runs as it is written, to be seen.

    Guidance's passes are parts of their step. Where a kind came several times, the last counts.
    """
    steps: list[Step] = []
    ledger = _Ledger(device)

    def tick(_done: int, _steps: int) -> None:
        steps.append(ledger.close())
        steps[-1].kept = kept_bytes(pipe)

    pipe.clock.on_tick.append(tick)
    pipe.clock.on_edge.append(ledger.close)  # encoding the text is no part of the first step
    try:
        with torch.inference_mode(), pipe.uncompiled(), ledger:
            generate()
    finally:
        pipe.clock.on_tick.remove(tick)
        pipe.clock.on_edge.remove(ledger.close)
    found = dict(zip(pipe.passes.by_step.values(), steps, strict=True))
    for kind, step in found.items():
        if kind not in ("forecast", "reused"):
            step.kept = 0
        step.floor = step.linears.seconds + step.attention.seconds + step.kept / device.bytes
    return found


def kept_bytes(pipe: Pipe) -> int:
    """What the cache holds now."""
    held = [one for cache in pipe.caches for memory in cache.memories.values() for one in memory.tensors()]
    return sum({one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in held}.values())


class _Ledger(MacCounter):
    """Books every function under a part of the present step. A closed kernel's products are those that it states."""

    def __init__(self, device: Ceilings) -> None:
        super().__init__()
        self.device, self.dtype = device, "float32"
        self.parts: dict[str, Part] = defaultdict(Part)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        before = self.total
        out = super().__torch_function__(func, types, args, kwargs)
        if isinstance(out, Tensor):
            given = [one for one in (*args, *(kwargs or {}).values()) if isinstance(one, Tensor)]
            self._book(func, out, given, self.total - before)
        return out

    def _book(self, func: Any, out: Tensor, given: list[Tensor], macs: int) -> None:
        if macs == 0 and any(_storage(out) == _storage(one) for one in given):
            return  # a view
        part = self.parts["rest" if macs == 0 else "attention" if func in ATTENTION else "linears"]
        moved = _bytes(out) + sum(map(_bytes, given))
        part.macs += macs
        part.bytes += moved
        if macs:
            self.dtype = _dtype(func, given)
            part.seconds += self.device.seconds(macs, moved, self.dtype)

    def close(self) -> Step:
        """The books of the step that has ended. What a kernel stated and no function showed is attention."""
        parts, self.parts = self.parts, defaultdict(Part)
        attention = parts["attention"]
        stated = self.total - parts["linears"].macs
        if stated != attention.macs:
            attention = Part(stated, 0, self.device.seconds(stated, 0, self.dtype))
        self.total = 0
        return Step(parts["linears"], attention, parts["rest"])


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if type(tensor) is Tensor else id(tensor)


def _bytes(tensor: Tensor) -> int:
    """As it is stored: a rounded weight by its parts."""
    if type(tensor) is not Tensor and hasattr(tensor, "__tensor_flatten__"):
        names = tensor.__tensor_flatten__()[0]  # pyright: ignore[reportAttributeAccessIssue]
        return sum(_bytes(getattr(tensor, name)) for name in names)
    return tensor.numel() * tensor.element_size()


def _dtype(func: Any, given: list[Tensor]) -> str:
    """In what numbers a product is multiplied: rounded ones only where activations are rounded too."""
    if "int8" in str(func):
        return "int8"
    rounded = [one for one in given if getattr(one, "act_quant_kwargs", None) is not None]
    dtype = rounded[0].qdata.dtype if rounded else given[0].dtype  # pyright: ignore[reportAttributeAccessIssue]
    return str(dtype).removeprefix("torch.").replace("float16", "bfloat16").replace("bbfloat", "bfloat")


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"{time.perf_counter() - started:.1f} s")
