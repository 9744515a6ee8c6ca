"""What caches share under which each row of a batch goes at its own pace: it is forecast by its own last full steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ditstack.plugin import Cache, Capability, Knob, Trunk

if TYPE_CHECKING:
    from ditstack.plugin import FeatureCache, Pipe


class RowForecasts(Cache):
    """The line through a row's last two full steps says what lies between, in the step's index."""

    @property
    def needs(self) -> frozenset[Capability]:
        return super().needs | {Capability.ROWS}

    @property
    def knob(self) -> Knob:
        return Knob("interval", values=(2, 4, 6))

    def kept(self, trunk: Trunk) -> float:
        return 2 * trunk.feature

    def forecasts(self, pipe: Pipe) -> FeatureCache:
        """What keeps the features of the pipe's trunks, and forecasts them."""
        from ditstack.maths.predictors import Taylor
        from ditstack.plugin import FeatureCache

        return FeatureCache(pipe, lambda site: Taylor(1), "step")
