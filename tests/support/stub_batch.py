"""A batch whose pictures are painted by a stub: each item's seed as a shade of grey."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ditstack.assembly.sample import Pictures
from ditstack.batch.generate import Generator
from ditstack.batch.rows.batches import Item
from ditstack.batch.rows.check import BadRow
from ditstack.batch.spec import BatchSpec
from ditstack.batch.writer import Writer
from ditstack.recipe.recipe import Recipe

RECIPE = Recipe.parse({"model": {"method": "flux", "device": "cpu"}, "sampler": {"steps": 2, "size": "16x16"}}, "stub")


def paint(items: Sequence[Item]) -> Pictures:
    shades = torch.tensor([item.seed % 251 / 251 for item in items])
    images = shades.view(-1, 1, 1, 1).expand(len(items), 3, 16, 16)
    return Pictures(images, images, {"denoise": 0.01}, {"full": 2}, 5)


def spec(home: Path, text: str = "a\nb\nc\nd\ne\n", name: str = "prompts.txt", **more: Any) -> BatchSpec:
    prompts = home / name
    prompts.write_text(text)
    return BatchSpec(**{"recipe": RECIPE, "prompts": prompts, "folder": home / "out", "batch_size": 2, **more})


def lines(folder: Path, name: str = "manifest.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out" / name).read_text().splitlines()]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "out" / "pictures").iterdir())}


def go_on(one: BatchSpec) -> list[str]:
    """What a run makes that is not made yet, without Lightning; what it found wrong in the books."""
    try:
        one.begin()
        writer = Writer(one, 0, 1, done := one.ledger.done())
        for batch in one.batches(done, tell=lambda row: writer.refuse(row) if isinstance(row, BadRow) else None):
            writer.take(list(Generator(paint).generate(batch.items)))
        writer.close({"rank": 0})
        one.ledger.close(1)
        one.ledger.finish()
    finally:
        one.ledger.leave()
    return one.ledger.repaired
