"""Foreign: what another's DataLoader yields (prompts, dicts, lists or columns of them) becomes items to make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from ditstack.batch.rows.batches import Item, items_of
from ditstack.batch.rows.check import BadRow, GoodRow, check_row
from ditstack.errors import BadPipeline

WANTED = 'wanted prompts, dicts such as {"prompt": "..."}, or a dict of lists such as {"prompt": ["...", "..."]}'


def rows_in(batch: Any, numbers: Iterable[int]) -> list[GoodRow | BadRow]:
    """The rows of one batch, checked as those of a file are.

    Args:
        numbers: of the rows, as many as are asked for; a row without an id is named after its number.

    Raises:
        BadPipeline: it is nothing that rows can be read from.
    """
    counted = iter(numbers)
    return [_single(check_row(0, next(counted), one, None, ".", own_size=False)) for one in _dicts(batch)]


def items_in(rows: Sequence[GoodRow | BadRow], run_seed: int) -> list[Item]:
    """One item per good row, numbered as the row is."""
    good = [row for row in rows if isinstance(row, GoodRow)]
    return [replace(item, number=one.index) for one in good for item in items_of([one], run_seed)]


def _single(row: GoodRow | BadRow) -> GoodRow | BadRow:
    """One picture of a row, since a dataset's places number both."""
    if isinstance(row, BadRow) or row.row.num_images == 1:
        return row
    return BadRow(row.line, row.index, row.row.id, "num_images: a DataLoader gives one row for each picture")


def _dicts(batch: Any) -> list[Mapping[str, Any]]:
    if isinstance(batch, str):
        return [{"prompt": batch}]
    if isinstance(batch, Mapping):
        return _columns({str(key): _plain(value) for key, value in batch.items()})
    if isinstance(batch, (list, tuple)) and batch:
        return [row for one in batch for row in _dicts(one)]
    raise BadPipeline(f"found a batch of type {type(batch).__name__}; {WANTED}")


def _columns(columns: dict[str, Any]) -> list[Mapping[str, Any]]:
    """A dict of lists, as PyTorch collates dicts, row by row; one of single values is a row itself."""
    lengths = {len(value) for value in columns.values() if isinstance(value, (list, tuple))}
    if not lengths:
        return [columns]
    if len(lengths) > 1:
        raise BadPipeline(f"found a batch with columns of {' and '.join(map(str, sorted(lengths)))} rows; {WANTED}")
    each = {
        key: value if isinstance(value, (list, tuple)) else [value] * max(lengths) for key, value in columns.items()
    }
    return [dict(zip(each, row, strict=True)) for row in zip(*each.values(), strict=True)]


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor) else value
