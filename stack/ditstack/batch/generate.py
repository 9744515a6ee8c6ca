"""Generate: a batch of items becomes pictures; too little memory halves it, and one bad item does not spoil others."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ditstack.assembly.sample import Pictures
from ditstack.batch.outcomes import Failed, Made
from ditstack.batch.rows.batches import Item
from ditstack.batch.rows.check import Row, picture_file
from ditstack.batch.store.folder import Folder, write
from ditstack.calibration.calibrate import default_file, factors_file, wanting
from ditstack.calibration.run import Tell
from ditstack.errors import BadPipeline, DitstackError
from ditstack.files import at_home_in
from ditstack.pipeline.calls import enter_around_calls
from ditstack.recipe.recipe import Recipe
from ditstack.stack import Stack, load

PATIENCE = 10
"""So many failures without one picture end the run where a plain prompt fails too: then it is not the rows' fault."""
MOST = 64
"""The largest batch that `auto` tries."""
FAULTS = (
    DitstackError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, RuntimeError,
    MemoryError, OSError,
)  # fmt: skip
"""What a pipeline raises over what it is asked for."""


@dataclass
class Generator:
    """Makes pictures of items with `make`, which takes items of one kind and gives one picture each."""

    make: Callable[[Sequence[Item]], Pictures]
    limit: int = MOST * 1000
    """The largest batch that fits, as far as is known."""
    quick: bool = True
    """Whether `make` takes fewer steps than the recipe's, so that a size is soon tried."""
    seconds: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    macs: int = 0
    pictures: int = 0
    failures: int = 0

    def generate(self, items: Sequence[Item]) -> Iterator[Made | Failed]:
        """Each item once.

        Raises:
            DitstackError: nothing but failures since the beginning.
        """
        for start in range(0, len(items), self.limit):
            yield from self._generate(items[start : start + self.limit])

    def _generate(self, items: Sequence[Item]) -> Iterator[Made | Failed]:
        try:
            made = self.make(items)
        except FAULTS as error:
            short, why = is_out_of_memory(error), _sentence(error)
        else:
            yield from self._sized(items, made)
            return
        if len(items) == 1:
            yield self._fail(items[0], "too little memory for this size" if short else why)
            return
        half = len(items) // 2 if short else 1
        if short:
            _free()
            self.limit = min(self.limit, half)
        for start in range(0, len(items), half):
            yield from self.generate(items[start : start + half])

    def _sized(self, items: Sequence[Item], made: Pictures) -> Iterator[Made | Failed]:
        """The pictures, unless they are of another size than their rows ask for: many models round it in silence."""
        height, width = made.images.shape[-2:]
        row = items[0].row
        if row.width is not None and (row.width, row.height) != (width, height):
            why = f"found the size {row.width}x{row.height}; the model would make it {width}x{height}: write that"
            for item in items:
                yield self._fail(item, why)
            return
        self._count(made, len(items))
        for place, (item, image) in enumerate(zip(items, made.images, strict=True)):
            yield Made(item, image, made.fps, made.each[place] if made.each else None)

    def _fail(self, item: Item, why: str) -> Failed:
        self.failures += 1
        if not self.pictures and self.failures == PATIENCE and not self._works(item):
            raise BadPipeline(f"the first {self.failures} rows all failed; the last one: {why}")
        return Failed(item, why)

    def _works(self, item: Item) -> bool:
        """Whether a plain prompt, or class, makes a picture: then it was the rows' fault."""
        try:
            self.make([replace(item, row=Row(id="control", prompt="a red circle", class_label=0))])
        except FAULTS:
            return False
        return True

    def _count(self, made: Pictures, pictures: int) -> None:
        self.pictures += pictures
        self.seconds.update(made.seconds)
        self.steps.update(made.steps)
        self.macs += made.macs

    def largest(self, item: Item) -> int:
        """The largest power of two that fits: tried with two steps, doubling, until memory or `MOST` ends it."""
        size, trial = 1, replace(item, row=item.row.model_copy(update={"steps": 2})) if self.quick else item
        while size < MOST and _room_for_double():
            try:
                self.make([trial] * (2 * size))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                _free()
                break
            size *= 2
        return size


class StackSampler:
    """The stack of a recipe as a generator's `make`: calls it with the items' own prompts, seeds and sizes."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.plain = stack.pipeline
        self.from_picture: Any = None
        self.takes_classes = "class_labels" in stack.pipe.ask(["0"])

    def __call__(self, items: Sequence[Item]) -> Pictures:
        row, recipe = items[0].row, self.stack.recipe
        size = f"{row.width}x{row.height}" if row.width else recipe.sampler.size
        wanted = {"steps": row.steps, "guidance": row.guidance, "size": size}
        sampler = recipe.sampler.changed(**{key: value for key, value in wanted.items() if value is not None})
        extra: dict[str, Any] = {}
        if row.negative_prompt is not None:
            extra["negative_prompt"] = [item.row.negative_prompt for item in items]
        if row.image is not None:
            extra["image"] = [_open(item.row.image, sampler.width_height) for item in items]
        if row.strength is not None:
            extra["strength"] = row.strength
        self.stack.pipe.pipeline = self._img2img() if row.image is not None else self.plain
        prompts, seeds = [self._words(item.row) for item in items], [item.seed for item in items]
        return self.stack.make(prompts, seeds, sampler, extra=extra)

    def _words(self, row: Row) -> str:
        """What the model is asked for: a class by its number where it takes classes."""
        if row.class_label is not None and self.takes_classes:
            return str(row.class_label)
        if row.prompt is None:
            raise BadPipeline("found a class_label; this model takes prompts")
        return row.prompt

    def _img2img(self) -> Any:
        """The pipeline's baseline that starts from a picture; it shares every weight."""
        import inspect

        if self.from_picture is None:
            from diffusers import AutoPipelineForImage2Image  # pyright: ignore[reportPrivateImportUsage]

            name = type(self.plain).__name__
            try:
                takes = "image" in inspect.signature(type(self.plain).__call__).parameters
                self.from_picture = self.plain if takes else AutoPipelineForImage2Image.from_pipe(self.plain)
            except ValueError:
                raise BadPipeline(f"a {name} cannot start from a picture; leave out the image") from None
            if self.from_picture is not self.plain:
                enter_around_calls(self.from_picture, self.stack.pipe.clock.call)
            self.from_picture.set_progress_bar_config(disable=True)
        return self.from_picture


def stand(
    recipe: Recipe, device: torch.device, folder: Folder | None, first: bool = True, tell: Tell = lambda text: None
) -> Stack:
    """The recipe's stack on a device. Factors that the first process found or fitted lie in the run's folder for all.

    A file that the recipe names is used as it is; without a folder factors lie where they always do.
    """
    placed = recipe.with_(model={"device": str(device)})
    if folder is None or not wanting(placed) or factors_file(placed) != default_file(placed):
        return load(placed, tell)
    name = f"factors/{default_file(placed).name}"
    shared = folder.local(name)
    if not first or shared.is_file():
        with at_home_in(folder.scratch):
            return load(placed, tell)
    stack = load(placed, tell)
    if stack.factors is not None:
        stack.factors.save(shared)
        write(folder, name, shared.read_bytes())
    return stack


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and "alloc" in text and ("memory" in text or "cublas" in text)


def _sentence(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:500]


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _room_for_double() -> bool:
    """On a CPU an allocation does not fail, the machine does: stop while a third of its memory is free."""
    if torch.cuda.is_available():
        return True
    if not Path("/proc/meminfo").is_file():
        return False
    with open("/proc/meminfo", encoding="ascii") as file:
        known = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in file)}
    return known["MemAvailable"] > known["MemTotal"] / 3


def _open(path: str | None, size: tuple[int, int] | None) -> Any:
    from PIL import Image

    with picture_file(str(path)) as picture:
        full = picture.convert("RGB")
    return full if size is None else full.resize(size, Image.Resampling.LANCZOS)
