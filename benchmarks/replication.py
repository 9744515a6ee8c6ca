"""The papers' claims on the twins, a table at a time: docs/replication.md.

    python benchmarks/replication.py [--table 1] [--prompts 48] [--only "guidance 4" svd]

1 ICC under DDIM (twin-dit), 2 ICC under DPM-Solver++ (twin-pixart), 3 SVD-Cache (twin-flux2, twin-hunyuanvideo), 4 what
stands with SVD-Cache, 5 patterns, 6 calibration, 7 recalibration. Prompts and seeds that are reported are not those
that factors are fitted on or controls are chosen on. Each row is added to
benchmarks/results/<machine>_<date>/replication_N.json at once; started again, the command goes on where it was, in the
newest such file. A twin that was exported again is measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ditstack.compat import hush, hush_loading
from replicating import bench as bench_of
from replicating import calibration, icc, patterns, recalibration, stacks, svdcache
from replicating.bench import CASE, EMBEDDED, KEY, Bench, Case, Row, Setting, weights
from results import add_row, newest_place
from sampled import KEPT

Table = Callable[[], Iterator[tuple[Setting, Callable[[Bench], Iterator[Case]]]]]
TABLES: dict[int, Table] = {
    1: icc.table_1,
    2: icc.table_2,
    3: svdcache.table_3,
    4: stacks.table_4,
    5: patterns.table_5,
    6: calibration.table_6,
    7: recalibration.table_7,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=int, default=1, choices=sorted(TABLES))
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--twins", type=Path, default=bench_of.TWINS, help="a folder with other exports and recipes")
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose line holds one of these words")
    wanted = parser.parse_args()
    bench_of.TWINS = wanted.twins
    os.environ["DITSTACK_HOME"] = str(KEPT / "home")
    hush()
    hush_loading()
    for row in measured(wanted.table, wanted.prompts, tuple(wanted.only)):
        print(line(row), flush=True)


def measured(table: int, prompts: int, only: tuple[str, ...] = ("",)) -> Iterator[Row]:
    """Every row of a table that is not there yet, as it is written."""
    for setting, cases in TABLES[table]():
        if setting.twin != EMBEDDED and not (bench_of.TWINS / setting.twin).is_dir():
            print(f"twin-{setting.twin} is not trained yet; left out")
            continue
        bench = Bench(setting, prompts, known(table))
        for case in cases(bench):
            there = bench.row(case.group, case.name)
            if there is None and any(word in f"{bench.title}, {case.group}, {case.name}" for word in only):
                row = bench.measure(case)
                add_row(case_of(table), {}, row, KEY, newest_place(case_of(table)))
                yield row


def known(table: int) -> list[Row]:
    """The rows of a table that are there."""
    file = newest_place(case_of(table))
    rows = json.loads(file.read_text())["rows"] if file.is_file() else []
    return [row for row in rows if row["weights"] == weights(row["twin"])]


def case_of(table: int) -> str:
    """Its results file."""
    return f"{CASE}_{table}"


def line(row: dict[str, Any]) -> str:
    """What a row says, for the terminal."""
    where = f"{row['twin']}, {row['steps']} steps, guidance {row['guidance']:g}, seed {row['seed']}"
    gain = "{:+.2f} ({:+.2f} to {:+.2f})".format(*row["gain"]) + f" over {row['against']}" if "gain" in row else ""
    agree = f"{100 * row['agree']:3.0f} %" if "agree" in row else "     "  # no judge knows pictures of another size
    figures = f"{statistics.fmean(row['psnr_each']):6.2f} dB  {row['macs_ratio']:.3f}  {agree}"
    return f"{where:44s} {row['name']:50s} {figures}  {gain}"


if __name__ == "__main__":
    main()
