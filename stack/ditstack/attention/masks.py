"""Masks: which keys a mask lets through, looked at once in a generation, so that no call waits for the GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ditstack.pipeline.pipe import Pipe

if TYPE_CHECKING:
    from ditstack.attention.dispatch import Call

# B batch, H heads, T tokens, D width of a head


@dataclass(frozen=True)
class Seen:
    """The keys that a mask lets through, the same for every item: a range, or single places; None where items differ.

    Attributes:
        mask: that was looked at; holding it keeps its memory from being given to another.
    """

    mask: Tensor
    where: slice | Tensor | None

    def of(self, x_BHTD: Tensor) -> Tensor:
        """Those of the keys or values: a view where they lie side by side."""
        if isinstance(self.where, slice):
            return x_BHTD[..., self.where, :]
        assert self.where is not None
        return x_BHTD.index_select(-2, self.where)

    def is_of(self, mask: Tensor) -> bool:
        """Whether this very memory was looked at."""
        own = self.mask
        return own is mask or (
            _place(own) == _place(mask) and own.shape == mask.shape and own.stride() == mask.stride()
        )


class Masks:
    """What the masks of one pipe's attentions let through. Where a mask of the generation turns out to be another than
    the one that was looked at, the report says so; telling waits until the generation has ended.

    Args:
        pipe: whose generations they are; None looks at every mask anew.
    """

    def __init__(self, pipe: Pipe | None = None) -> None:
        self.pipe = pipe
        self._at: dict[Any, Seen] = {}
        self._compared: dict[Any, Tensor] = {}
        self._other: Tensor | None = None
        if pipe is not None:
            pipe.clock.on_edge.append(self._edge)

    def seen(self, keys_B1T: Tensor, site: str) -> Seen:
        """Of a mask at a site; waits for the GPU when the mask is first met in a generation."""
        if self.pipe is None:
            return _look(keys_B1T)
        at = (site, self.pipe.clock.branch, keys_B1T.shape)
        if at not in self._at:
            alike = (one for one in self._at.values() if one.is_of(keys_B1T))
            self._at[at] = next(alike, None) or _look(keys_B1T)
        elif not self._at[at].is_of(keys_B1T):
            self._compare(keys_B1T, self._at[at].mask)
        return self._at[at]

    def _compare(self, mask: Tensor, first: Tensor) -> None:
        """Note whether a mask equals the one before; blocks are mostly given one and the same."""
        key = id(first)
        known = self._compared.get(key)
        if known is not None and _place(known) == _place(mask):
            return
        self._compared[key] = mask
        other = (mask != first).any()
        self._other = other if self._other is None else self._other | other

    def _edge(self) -> None:
        note = (
            "attention: a mask changed within a generation, and the kernel kept to the first; write attention: native"
        )
        if self._other is not None and bool(self._other) and self.pipe is not None and note not in self.pipe.notes:
            self.pipe.notes.append(note)
        self._at.clear()
        self._compared.clear()
        self._other = None


def without_hidden(k: Tensor, v: Tensor, call: Call) -> tuple[Tensor, Tensor, str | None]:
    """The keys and values that the mask lets through, for kernels that know no masks; or why it cannot be said so."""
    if call.mask is None:
        return k, v, None
    if call.keys is None or call.causal:
        return k, v, "they carry a mask between single tokens"
    masks: Masks = getattr(getattr(call.site, "replacement", None), "masks", None) or Masks()
    seen = masks.seen(call.keys, getattr(call.site, "name", ""))
    if seen.where is None:
        return k, v, "their mask differs between the items of a batch"
    return seen.of(k), seen.of(v), None


def _look(keys_B1T: Tensor) -> Seen:
    rows_BT = keys_B1T[:, 0].cpu()
    if bool((rows_BT != rows_BT[0]).any()):
        return Seen(keys_B1T, None)
    places = rows_BT[0].nonzero()[:, 0]
    count = len(places)
    if count and int(places[-1]) - int(places[0]) + 1 == count:
        return Seen(keys_B1T, slice(int(places[0]), int(places[-1]) + 1))
    return Seen(keys_B1T, places.to(keys_B1T.device))


def _place(tensor: Tensor) -> int:
    """Where a tensor's values lie; of one without memory, the object."""
    try:
        return tensor.data_ptr()
    except RuntimeError:
        return id(tensor)
