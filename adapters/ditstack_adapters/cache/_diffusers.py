"""What caches of diffusers share that skip blocks while a measure of change stays below a threshold."""

from __future__ import annotations

from ditstack.plugin import Cache, Capability, Knob


class Thresholded(Cache):
    """Diffusers finds the blocks by itself."""

    @property
    def needs(self) -> frozenset[Capability]:
        return frozenset({Capability.FREE_TRUNK, Capability.CACHE_HOOKS})

    @property
    def knob(self) -> Knob:
        return Knob("threshold", scales=(0.5, 1.0, 2.0, 4.0))
