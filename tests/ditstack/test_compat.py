"""compat: what one version of a dependency lacks is made up for, and does the same."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._dynamo import config
from torch._dynamo.utils import counters

from ditstack.compat import compile_apart

SIZES = range(3, 9)


def pieces(compiled: Callable[..., Any]) -> int:
    """How many pieces of code a function needs for some sizes, each of which it compiles by itself."""
    before = counters["stats"]["unique_graphs"]
    with config.patch(automatic_dynamic_shapes=False):
        for size in SIZES:
            assert torch.equal(compiled(torch.ones(size)), torch.full((size,), 3.0))
    return counters["stats"]["unique_graphs"] - before


def counted(offset: float) -> Callable[..., Any]:
    def add(x: torch.Tensor, *, twice: float = 2.0) -> torch.Tensor:
        return x * twice + offset

    return add


def as_in_2_11(function: Any, *, fullgraph: bool = False, backend: str = "inductor", mode: str | None = None) -> Any:
    return WHOLE(function, fullgraph=fullgraph, backend=backend, mode=mode)


WHOLE = torch.compile


@pytest.mark.parametrize("old", [False, True])
def test_code_is_shared_with_no_other_call_and_the_limit_is_its_own(old: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if old:
        monkeypatch.setattr(torch, "compile", as_in_2_11)
    function = counted(1.0)
    with config.patch(recompile_limit=4):
        first, second = (compile_apart(function, len(SIZES), fullgraph=True, backend="eager") for _ in range(2))
        assert [pieces(one) for one in (first, first, second)] == [len(SIZES), 0, len(SIZES)]
