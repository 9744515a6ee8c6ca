"""Writes a run's averaged weights as a pipeline folder, scores it, and writes its card.

    PYTHONPATH=benchmarks python -m twinning.export dit .train/dit benchmarks/twins/dit --prompts 120

A run may go on meanwhile: its last saved state is taken. The folder is replaced at once, or not at all.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from twinning.card import card
from twinning.parts import use_plain_attention
from twinning.score import evaluate, open_folder
from twinning.twin import NAMES, Twin, find

FACTS = ("steps", "samples", "trained", "seed")


def restore(twin: Twin, run: Path) -> tuple[Any, dict[str, Any]]:
    """The painter with the run's averaged weights, and what is known of the run."""
    state = torch.load(run / "state.pt", weights_only=True)
    painter = twin.painter()
    painter.load_state_dict(state["average"])
    counts = {name: sum(weight.numel() for weight in part.parameters()) for name, part in painter.named_children()}
    return painter, {**{name: state[name] for name in FACTS}, "parameters": counts}


def export(twin: Twin, run: Path, folder: Path, prompts: int) -> list[dict[str, Any]]:
    """Writes weights, `scores.json` and README.md; returns the scores, one for each of the twin's settings."""
    painter, facts = restore(twin, run)
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    twin.pipeline(painter).save_pretrained(fresh)
    pipe = open_folder(fresh)
    scores = [evaluate(twin, pipe, prompts, steps, guidance) for steps, guidance in twin.settings if prompts]
    (fresh / "scores.json").write_text(json.dumps({"run": facts, "scores": scores}, indent=1) + "\n")
    (fresh / "README.md").write_text(card(twin, facts, scores))
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    return scores


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("twin", choices=NAMES)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prompts", type=int, default=120, help="for each score; 0 scores nothing")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    use_plain_attention()
    for score in export(find(given.twin), given.run, given.folder, given.prompts):
        print(json.dumps(score), flush=True)


if __name__ == "__main__":
    main()
