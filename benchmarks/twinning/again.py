"""Begins a run from an exported twin, where the run that made it is gone: its weights and counts, new optimizers.

PYTHONPATH=benchmarks python -m twinning.again flux2 .train/flux2 benchmarks/twins/flux2
PYTHONPATH=benchmarks python -m twinning.train flux2 .train/flux2 --end ...
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from torch import nn

from twinning.score import open_folder
from twinning.train import Run, begin
from twinning.twin import NAMES, find


def take_over(run: Run, folder: Path) -> None:
    """Overwrites every part of the painter by the pipeline's part that has its weights' names."""
    parts: list[Any] = [part for part in open_folder(folder).components.values() if isinstance(part, nn.Module)]
    for child in run.painter.children():
        [same] = [part for part in parts if part.state_dict().keys() == child.state_dict().keys()]
        child.load_state_dict(same.state_dict())
    run.average = {name: value.clone() for name, value in run.painter.state_dict().items()}
    facts = json.loads((folder / "scores.json").read_text())["run"]
    run.steps, run.samples, run.trained = facts["steps"], facts["samples"], facts["trained"]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("twin", choices=NAMES)
    parser.add_argument("folder", type=Path, help="of a run that is not begun yet")
    parser.add_argument("export", type=Path, help="the twin's pipeline")
    parser.add_argument("--seed", type=int, default=1, help="another than the export's, or its samples come again")
    given = parser.parse_args()
    if (given.folder / "state.pt").exists():
        parser.error(f"{given.folder} holds a run that is begun")
    run = begin(find(given.twin), given.folder, given.seed)
    take_over(run, given.export)
    run.save(given.folder)


if __name__ == "__main__":
    main()
