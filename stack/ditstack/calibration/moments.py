"""Moments: sums of products of activations, in fp64 on the host; what a GPU holds of them on the way is bounded."""

from __future__ import annotations

import torch
from torch import Tensor

ROOM_GB = 8.0
"""GB of the GPU that sums may take where nothing else is said."""


class Moments:
    """Adds up matrices by name.

    Where activations lie on a GPU, the sums of one prompt are kept there in fp32, as many as there is room for;
    `settle` and what finds no room add to the host's sums in fp64: of FLUX.1-dev they are 43 GB.

    Args:
        sums: where they end, on the host.
        room_gb: what may lie on the GPU.

    Attributes:
        most: the most bytes that lay on the GPU.
    """

    def __init__(self, sums: dict[str, Tensor], room_gb: float = ROOM_GB) -> None:
        self.sums, self.room, self.most = sums, int(room_gb * 1e9), 0
        self._held: dict[str, Tensor] = {}

    def add(self, key: str, product: Tensor) -> None:
        """One more matrix of a name."""
        if product.device.type == "cpu":
            self._settle(key, product)
        elif key in self._held:
            self._held[key].add_(product)
        elif self.held_bytes + product.numel() * product.element_size() <= self.room:
            self._held[key] = product
            self.most = max(self.most, self.held_bytes)
        else:
            self._settle(key, product)

    @property
    def held_bytes(self) -> int:
        """On the GPU now."""
        return sum(one.numel() * one.element_size() for one in self._held.values())

    def settle(self) -> None:
        """Move what the GPU holds to the host's sums, after each prompt: fp32 adds up few terms."""
        for key in list(self._held):
            self._settle(key, self._held.pop(key))

    def _settle(self, key: str, product: Tensor) -> None:
        # activations are of inference mode, which would not let the sums be changed outside it
        with torch.inference_mode(False), torch.no_grad():
            exact = product.cpu().double()
            self.sums[key] = self.sums[key].to(exact).add_(exact) if key in self.sums else exact
