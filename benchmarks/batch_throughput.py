"""What a batch costs beside the sampling: batches against one by one, the writer's share, and a million rows.

    python benchmarks/batch_throughput.py

The million rows are painted by a stub, so that only reading, checking, batching and book-keeping is measured; the run
is stopped after some pictures, since its start and its memory are the question. Then all rows are passed over once, as
when a run that is nearly done goes on. Figures are written where both parts run; on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

START = time.perf_counter()

import torch  # noqa: E402

from ditstack.assembly.sample import Pictures  # noqa: E402
from ditstack.batch.rows.batches import Item  # noqa: E402
from ditstack.batch.rows.sources import Source  # noqa: E402
from ditstack.batch.run import Job  # noqa: E402
from ditstack.batch.spec import BatchSpec  # noqa: E402
from ditstack.compat import hush  # noqa: E402
from ditstack.recipe.recipe import Recipe  # noqa: E402
from ditstack.report import peak_memory, reset_peak_memory  # noqa: E402
from results import write  # noqa: E402

MIB = 2**20
KINDS = (".csv", ".parquet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--painted", type=int, default=2_000, help="stub pictures before the million rows are stopped")
    parser.add_argument("--out", type=Path, default=Path("/tmp/ditstack-throughput"))
    parser.add_argument("--only", choices=["rows", "batching"])
    wanted = parser.parse_args()
    hush()
    shutil.rmtree(wanted.out, ignore_errors=True)
    wanted.out.mkdir(parents=True)
    found: dict[str, Any] = {name: value for name, value in vars(wanted).items() if name not in ("out", "only")}
    found |= {"threads": torch.get_num_threads(), "seconds_to_import": time.perf_counter() - START}
    if wanted.only != "batching":
        found["rows_by_kind"] = {kind: million(wanted.out, kind, wanted.rows, wanted.painted) for kind in KINDS}
    if wanted.only != "rows":
        found |= batching(wanted.out, wanted.prompts, wanted.steps, wanted.batch_size, wanted.repeats)
    print({name: value for name, value in found.items() if name != "report"})
    if wanted.only is None:
        write("batch_throughput", found)


def batching(out: Path, count: int, steps: int, size: int, repeats: int) -> dict[str, Any]:
    """The embedded model one by one and in batches, in turn; and what writing took and held up. Medians."""
    prompts = out / "prompts.txt"
    prompts.write_text("".join(f"a red circle in the center on a gray plain background {i}\n" for i in range(count)))
    recipe = Recipe.read("tiny", [f"sampler.steps={steps}", "model.device=cpu"])
    runs: dict[int, list[Any]] = {1: [], size: []}
    for repeat in range(repeats):
        for one, reports in runs.items():
            reports.append(Job(BatchSpec(recipe, prompts, out / f"by-{one}-{repeat}", one)).run())
    by_size = {
        str(one): {
            "pictures_per_second": statistics.median(report.pictures_per_second for report in reports),
            **{name: statistics.median(_share(report, name) for report in reports) for name in ("write", "waited")},
        }
        for one, reports in runs.items()
    }
    rates = {one: [report.pictures_per_second for report in reports] for one, reports in runs.items()}
    gains = [many / single for many, single in zip(rates[size], rates[1], strict=True)]
    return {"by_size": by_size, "gains": gains, "report": runs[size][-1].model_dump(mode="json")}


def _share(report: Any, name: str) -> float:
    return report.seconds[name] / report.seconds["elapsed"]


def million(out: Path, kind: str, rows: int, painted: int) -> dict[str, float]:
    """When the first picture of a long file is painted, how memory grows from there, and what reading it all takes."""
    prompts = out / f"rows{kind}"
    _write_rows(prompts, rows)
    first: list[float] = []
    memory: list[int] = []
    before = _resident()
    begun = time.perf_counter()

    def stub(items: Sequence[Item]) -> Pictures:
        first.append(time.perf_counter())
        memory.append(_resident())
        if items[-1].number >= painted:
            os.kill(os.getpid(), signal.SIGINT)
        images = torch.zeros(len(items), 3, 16, 16)
        return Pictures(images, images, {}, {}, 0)

    spec = BatchSpec(Recipe.read("tiny", ["model.device=cpu"]), prompts, out / kind[1:], 16)
    Job(spec, make=stub).run()
    spec.source = Source.find(prompts)
    started, held = time.perf_counter(), _resident()
    reset_peak_memory()
    assert not list(spec.batches(bytearray(b"\1") * rows))
    return {
        "first_picture": first[0] - begun,
        "mib_before": before / MIB,
        "mib_at_first_picture": memory[0] / MIB,
        "mib_at_last_picture": memory[-1] / MIB,
        "seconds_to_pass_over_all": time.perf_counter() - started,
        "mib_more_while_passing_over_all": (peak_memory() - held) / MIB,
    }


def _write_rows(path: Path, rows: int) -> None:
    if path.suffix == ".csv":
        with path.open("w") as file:
            file.write("id,prompt,seed\n")
            file.writelines(f"row-{i},a picture of the number {i} and some more words,{i}\n" for i in range(rows))
        return
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    schema = pyarrow.schema([("id", "string"), ("prompt", "string"), ("seed", "int64")])
    with ParquetWriter(path, schema) as file:
        for start in range(0, rows, 100_000):
            some = range(start, min(start + 100_000, rows))
            prompts = [f"a picture of the number {i} and some more words" for i in some]
            file.write_table(pyarrow.table([[f"row-{i}" for i in some], prompts, list(some)], schema=schema))


def _resident() -> int:
    """Bytes of memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
