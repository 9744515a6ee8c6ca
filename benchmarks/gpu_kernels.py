"""Attention kernels and products at the shapes of FLUX.1-dev and HunyuanVideo: seconds and TFLOP/s on this GPU.

    python benchmarks/gpu_kernels.py [--out FOLDER] [--budget 120] [--small]

Each row is written at once into FOLDER/gpu_kernels.json. Attention is what `attention: auto` chooses among, with the
name of the kernel that ran; products are bf16, fp8 with one scale and with one for each row, and int8, of random
inputs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ditstack.attention.dispatch import Call
from ditstack.attention.rivals import NATIVE, native, rivals, seconds_of
from ditstack.compat import hush
from ditstack.recipe.capabilities import machine
from gpu_book import SPENT, Book, Deadline, OutOfTime, gpu_state, top_kernels
from limits import ceilings

ATTENTION = {"FLUX": (24, 4608, 128), "HunyuanVideo": (24, 57856, 128)}
"""Heads, tokens and width of a head."""
PRODUCTS = {"FLUX to_q": (4608, 3072, 3072), "FLUX ff in": (4608, 3072, 12288), "FLUX ff out": (4608, 12288, 3072),
            "HunyuanVideo ff in": (57856, 3072, 12288)}  # fmt: skip
"""Tokens, width in and width out."""
RIVALS = (NATIVE, "cudnn", "flash", "fa3", "flex", "sage")


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--budget", type=float, default=120.0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--small", action="store_true")
    wanted = parser.parse_args(given)
    hush()
    deadline = Deadline(wanted.budget)
    book = Book("gpu_kernels" + ("_small" if wanted.small else ""), wanted.out, wanted.resume)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    top = ceilings(device)
    facts = sorted(fact.sentence for fact in machine())
    for name, flop, run in measures(device, wanted.small):
        if book.done(name):
            continue
        book.put({"name": name, **_measured(flop, run, deadline)}, ceilings=asdict(top), facts=facts, gpu=gpu_state())


def _measured(flop: float, run: Callable[[], Any], deadline: Deadline) -> dict[str, Any]:
    try:
        deadline.check()
        seconds = seconds_of(run, torch.cuda.is_available())
        return {"seconds": seconds, "tflops": flop / seconds / 1e12, "kernels": top_kernels(run, 3)}
    except OutOfTime:
        return {"refused": SPENT}
    except Exception as error:  # a kernel that cannot run here is a row that says so
        return {"refused": str(error).splitlines()[0][:200] if str(error) else type(error).__name__}


def measures(device: torch.device, small: bool) -> Iterator[tuple[str, float, Callable[[], Any]]]:
    """Names, operations and calls, which make their own tensors when they are asked for."""
    for model, (heads, tokens, width) in ATTENTION.items():
        tokens = tokens // 64 if small else tokens
        flop = 4.0 * heads * tokens * tokens * width
        for name, kernel in {NATIVE: native, **rivals(RIVALS, device.type)}.items():
            yield f"attention {model}: {name}", flop, _attention(kernel, (1, heads, tokens, width), device)
    for name, (tokens, wide, high) in PRODUCTS.items():
        tokens, wide, high = (size // 64 if small else size for size in (tokens, wide, high))
        for scheme in ("bf16", "fp8 per tensor", "fp8 per row", "int8"):
            yield f"product {name}: {scheme}", 2.0 * tokens * wide * high, _product(scheme, tokens, wide, high, device)


def _attention(kernel: Any, shape: tuple[int, ...], device: torch.device) -> Callable[[], Any]:
    made: list[torch.Tensor] = []
    call = Call("here", None, False, shape[-1] ** -0.5)  # pyright: ignore[reportArgumentType]

    def run() -> Any:
        if not made:
            made.extend(torch.randn(shape, device=device, dtype=torch.bfloat16) for _ in range(3))
        out = kernel(*made, call)
        if not isinstance(out, torch.Tensor):
            raise NotImplementedError(out.reason)
        return out

    return run


def _product(scheme: str, tokens: int, wide: int, high: int, device: torch.device) -> Callable[[], Any]:
    made: list[torch.Tensor] = []

    def run() -> Any:
        if not made:
            made.extend(_operands(scheme, tokens, wide, high, device))
        a, b, *scales = made
        if scheme == "bf16":
            return a @ b
        if scheme == "int8":
            return torch._int_mm(a, b)
        return torch._scaled_mm(a, b, *scales, out_dtype=torch.bfloat16, use_fast_accum=True)

    return run


def _operands(scheme: str, tokens: int, wide: int, high: int, device: torch.device) -> list[torch.Tensor]:
    a, b = torch.randn(tokens, wide, device=device), torch.randn(high, wide, device=device)
    if scheme == "bf16":
        return [a.bfloat16(), b.bfloat16().T]
    if scheme == "int8":
        return [(a * 40).clamp(-127, 127).to(torch.int8), (b * 40).clamp(-127, 127).to(torch.int8).T]
    rows = scheme.endswith("row")
    scales = [torch.ones(tokens, 1), torch.ones(1, high)] if rows else [torch.ones(()), torch.ones(())]
    return [a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn).T, *(one.to(device) for one in scales)]


if __name__ == "__main__":
    main()
