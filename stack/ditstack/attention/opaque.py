"""Closed: an attention kernel that a compiler cannot look into is one operation to compiled blocks.

The operation is told its site by number, in a tensor: a number that is no tensor would be compiled into the code, and
alike blocks could not share it.
"""

from __future__ import annotations

from itertools import count
from typing import Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor


class Answering(Protocol):
    """Where attention is called."""

    def ask(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float, given: int
    ) -> Tensor:
        """The kernel's answer, or PyTorch's own where it declines."""
        ...


_SITES: WeakValueDictionary[int, Answering] = WeakValueDictionary()
_NUMBERS = count()


def number(site: Answering) -> Tensor:
    """What `attend` knows the site by."""
    given = next(_NUMBERS)
    _SITES[given] = site
    return torch.tensor(given, device="cpu")


def _ask(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, site: Tensor, causal: bool, scale: float, given: int
) -> Tensor:
    return _SITES[int(site)].ask(q, k, v, mask, causal, scale, given).contiguous()


attend = torch.library.custom_op(
    "ditstack::attend",
    _ask,
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor? mask, Tensor site, bool causal, float scale, int given) -> Tensor",
    tags=(torch.Tag.cudagraph_unsafe,),
)


@attend.register_fake
def _like(q: Tensor, k: Tensor, v: Tensor, *_: object) -> Tensor:
    return q.new_empty(*q.shape[:-1], v.shape[-1])
