"""Outcomes: what became of one item: a picture, or a reason. No dataclasses: Lightning takes those apart and copies."""

from __future__ import annotations

from torch import Tensor

from ditstack.assembly.sample import Account
from ditstack.batch.rows.batches import Item
from ditstack.batch.rows.check import BadRow


class Made:
    """A picture of one item: `image` is (3, H, W), or (F, 3, H, W) for a video, float in [0, 1].

    Args:
        account: what it cost, and what was decided of it.
    """

    def __init__(self, item: Item, image: Tensor, fps: int = 0, account: Account | None = None) -> None:
        self.item, self.image, self.fps, self.account = item, image, fps, account
        self.id, self.number, self.copy = item.row.id, item.number, item.copy
        self.prompt, self.seed = item.row.prompt, item.seed

    def __repr__(self) -> str:
        return f"Made({self.item.name}, {'x'.join(map(str, self.image.shape))})"


class Failed:
    """No picture, and why: of an item, or of a row that is none."""

    def __init__(self, item: Item | BadRow, why: str) -> None:
        self.line, self.why = item.line, why
        if isinstance(item, BadRow):
            self.id, self.number, self.copy = item.id, item.index, 0
        else:
            self.id, self.number, self.copy = item.row.id, item.number, item.copy

    def __repr__(self) -> str:
        return f"Failed({self.id}: {self.why})"
