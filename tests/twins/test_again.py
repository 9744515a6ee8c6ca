"""A run goes on from the pipeline that an earlier one exported."""

from pathlib import Path

import torch

from twinning.again import take_over
from twinning.export import export
from twinning.train import begin
from twinning.twin import find


def test_it_has_the_weights_and_counts_of_the_export(tmp_path: Path) -> None:
    twin = find("flux2")
    first = begin(twin, tmp_path / "first", seed=0)
    first.steps, first.samples, first.trained = 7, 336, 2.5
    first.save(tmp_path / "first")
    export(twin, tmp_path / "first", tmp_path / "pipeline", prompts=0)
    second = begin(twin, tmp_path / "second", seed=1)
    take_over(second, tmp_path / "pipeline")
    assert (second.steps, second.samples, second.trained) == (7, 336, 2.5)
    for kept in (second.painter.state_dict(), second.average):
        for name, value in first.average.items():  # an export rounds the transformer to bf16
            torch.testing.assert_close(kept[name], value, rtol=2**-8, atol=1e-6)
