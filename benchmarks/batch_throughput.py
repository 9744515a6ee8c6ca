"""What a batch costs beside the sampling: batches against one by one, the writer's share, and a million rows.

    python benchmarks/batch_throughput.py --out /tmp/throughput

The million rows are painted by a stub, so that only reading, checking, batching and book-keeping is measured; the run
is stopped after a few batches, since its start and its memory are the question.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

START = time.perf_counter()

import torch  # noqa: E402

from ditstack.batch.batches import Item  # noqa: E402
from ditstack.batch.order import Order  # noqa: E402
from ditstack.batch.run import Job  # noqa: E402
from ditstack.quiet import hush  # noqa: E402
from ditstack.recipe import Recipe  # noqa: E402
from ditstack.sample import Pictures  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--painted", type=int, default=2_000, help="stub pictures before the million rows are stopped")
    parser.add_argument("--out", type=Path, default=Path("/tmp/ditstack-throughput"))
    parser.add_argument("--only", choices=["rows", "batching"])
    arguments = parser.parse_args()
    hush()
    shutil.rmtree(arguments.out, ignore_errors=True)
    arguments.out.mkdir(parents=True)
    if arguments.only != "batching":
        million(arguments.out, arguments.rows, arguments.painted)
    if arguments.only != "rows":
        batching(arguments.out, arguments.prompts, arguments.steps, arguments.batch_size)


def batching(out: Path, count: int, steps: int, size: int) -> None:
    """The embedded model, one by one and in batches, with what writing held up."""
    prompts = out / "prompts.txt"
    prompts.write_text("".join(f"a red circle in the center on a gray plain background {i}\n" for i in range(count)))
    recipe = Recipe.read("tiny", [f"sampler.steps={steps}"])
    rates = {}
    for one in (1, size):
        report = Job(Order(recipe, prompts, out / f"by-{one}", one)).run()
        assert report is not None
        rates[one] = report.pictures_per_second
        share, thread = (report.seconds[key] / report.seconds["elapsed"] for key in ("waited", "write"))
        print(
            f"batches of {one}: {rates[one]:.2f} pictures/s; writer and manifest: {100 * thread:.2f} % of the time in "
            f"their own thread, {100 * share:.2f} % waited for"
        )
    print(f"batching: {rates[size] / rates[1]:.2f} x one by one")


def million(out: Path, rows: int, painted: int) -> None:
    """When the first picture of a long file is painted, and how memory grows with the rows."""
    prompts = out / "rows.csv"
    with prompts.open("w") as file:
        file.write("id,prompt,seed\n")
        file.writelines(f"row-{i},a picture of the number {i} and some more words,{i}\n" for i in range(rows))
    first: list[float] = []
    memory: list[int] = []
    begun = time.perf_counter()

    def stub(items: Sequence[Item]) -> Pictures:
        first.append(time.perf_counter())
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        if items[-1].number >= painted:
            os.kill(os.getpid(), signal.SIGINT)
        images = torch.zeros(len(items), 3, 16, 16)
        return Pictures(images, images, {}, {}, 0)

    Job(Order(Recipe.read("tiny"), prompts, out / "rows", 16), make=stub).run()
    print(
        f"{rows} rows: first picture {first[0] - begun:.1f} s after the order, {first[0] - START:.1f} s after the "
        f"program began; {memory[0]} MiB then, {memory[-1]} MiB after {painted} pictures"
    )
    from ditstack.batch.rows import read_rows
    from ditstack.batch.sources import Source

    started = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    assert sum(1 for _ in read_rows(Source.find(prompts))) == rows
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"all rows read and checked in {time.perf_counter() - started:.1f} s, peak memory {before} -> {after} MiB")


if __name__ == "__main__":
    main()
