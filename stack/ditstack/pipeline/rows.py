"""Rows: a transformer's call on some rows of its batch, and the answers of several such calls put together again.

A row is a picture, or one half of its guidance. Nothing that a transformer computes mixes rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ditstack.errors import BadPipeline


def cut(
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    parameters: Sequence[str],
    names: Sequence[str],
    rows: Sequence[int],
    batch: int,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A call's arguments for some of its rows.

    Args:
        parameters: the names of what is called, in order.
        names: the arguments that have a row for each of the batch; what they nest is cut too.

    Raises:
        BadPipeline: another argument looks as if it had a row for each of the batch.
    """

    def of(name: str, value: Any) -> Any:
        if name in names:
            return _take(value, rows, batch)
        if _has_rows(value, batch):
            raise BadPipeline(
                f"the transformer was called with {name}, whose rows cannot be told; run without the cache"
            )
        return value

    cut_args = tuple(of(parameters[place], one) for place, one in enumerate(args))
    return cut_args, {name: of(name, one) for name, one in kwargs.items()}


def put_together(parts: Sequence[tuple[Sequence[int], Any]], batch: int) -> Any:
    """The answer of a whole batch, from those of its rows: tensors, tuples, or diffusers' outputs of them."""
    first = parts[0][1]
    if isinstance(first, Tensor):
        out = first.new_empty((batch, *first.shape[1:]))
        for rows, one in parts:
            out[torch.as_tensor(rows, device=out.device)] = one
        return out
    if isinstance(first, Mapping):
        fields = {name: put_together([(rows, one[name]) for rows, one in parts], batch) for name in first}
        return type(first)(**fields)
    if isinstance(first, tuple):
        return tuple(put_together([(rows, one[place]) for rows, one in parts], batch) for place in range(len(first)))
    return first


def rows_of(answer: Any, rows: Sequence[int]) -> Any:
    """Some rows of an answer, in this order."""
    if isinstance(answer, Tensor):
        return answer[torch.as_tensor(rows, device=answer.device)]
    if isinstance(answer, Mapping):
        return type(answer)(**{name: rows_of(one, rows) for name, one in answer.items()})
    return tuple(rows_of(one, rows) for one in answer) if isinstance(answer, tuple) else answer


def _take(value: Any, rows: Sequence[int], batch: int) -> Any:
    if isinstance(value, Tensor):
        whole = value.ndim > 0 and len(value) == batch
        return value[torch.as_tensor(rows, device=value.device)] if whole else value
    if isinstance(value, Mapping):
        return {name: _take(one, rows, batch) for name, one in value.items()}
    return value


def _has_rows(value: Any, batch: int) -> bool:
    """Positions and rotations have no rows, and at most two axes."""
    if isinstance(value, Tensor):
        return value.ndim > 2 and len(value) == batch
    return isinstance(value, (list, tuple)) and any(_has_rows(one, batch) for one in value)
