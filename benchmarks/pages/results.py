"""Every table of the documentation with the one command that makes it, how long that takes, and where it was made."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path

import table as tables_of
from lines import head, line
from results import RESULTS, matrix_file

ROOT = Path(__file__).parents[2]
DURATIONS = ROOT / "benchmarks" / "durations.json"
"""Seconds that each command took, where that was noted; of a busy machine, so at most."""
PAPERS = (1, 2, 3, 4, 5, 6, 7)
"""Tables of the papers' claims, each with a results file of its own."""
SCRIPTS = {
    "defaults_again": "defaults",
    "defaults_more": "defaults",
    "promise_pixart": "promise",
    "step_costs": "step_cost",
    "svdcache_read": "svdcache",
    "svdcache_solvers": "svdcache",
    **{f"replication_{table}": "replication" for table in PAPERS},
}
"""The script of a case that has another name."""
OPTIONS = {
    "defaults_again": " --again 1",
    "defaults_more": " --fitted-on 32",
    "promise_pixart": " --model pixart",
    "svdcache_read": " --read",
    "svdcache_solvers": " --solvers",
    **{f"replication_{table}": f" --table {table}" for table in PAPERS},
}
MATRIX = (
    'ditstack matrix --model tiny --methods "distill=none,lora quantize=none,int8,int4 attention=native,sparse '
    'cache=none,fbcache,svdcache,icc" --out matrix`, then `PYTHONPATH=benchmarks python benchmarks/matrix_more.py '
    "--out .cache/matrix_more --fits .cache/solver"
)


def table() -> str:
    """A row for each table, in the order of pages."""
    rows = head(["table", "page", "the one command", "took", "measured on"])
    for page in tables_of.PAGES:
        for name in re.findall(r"<!-- table: (\w+) -->", page.read_text(encoding="utf-8")):
            for case in filter(_is_measured, cases(name)):
                rows.append(line([f"`{name}`", _link(page), f"`{command(case)}`", duration(case), _where(case)]))
    return "\n".join(rows)


def matrix() -> str:
    """What the committed matrix holds, with links that lead from docs/."""
    return tables_of.all_tables()["matrix"]().replace("](benchmarks/", "](../benchmarks/")


def cases(name: str) -> list[str]:
    """The results files that a table reads."""
    one = tables_of.all_tables()[name]
    source = inspect.getsource(one)
    found = re.findall(r'(?:latest|newest)\("(\w+)"\)', source)
    if not found and "matrix_file" in source:
        return ["matrix"]
    module = inspect.getmodule(one)
    assert module is not None
    return list(dict.fromkeys(found or re.findall(r'(?:latest|newest)\("(\w+)"\)', inspect.getsource(module))))


def command(case: str) -> str:
    """What makes a case: the first command in its script's text, without what may be left out."""
    if case == "matrix":
        return MATRIX
    script = _script(case)
    text = ast.get_docstring(ast.parse((ROOT / "benchmarks" / f"{script}.py").read_text(encoding="utf-8"))) or ""
    for shown in text.splitlines():
        if re.match(rf"\s+.*python benchmarks/{script}\.py", shown):
            return re.sub(r"\s*\[[^]]*\]", "", shown.strip()) + OPTIONS.get(case, "")
    return f"python benchmarks/{script}.py{OPTIONS.get(case, '')}"


def _script(case: str) -> str:
    """Its name: a case `promise_pixart` without a script of its own is one of `promise`."""
    script = SCRIPTS.get(case, case)
    while not (ROOT / "benchmarks" / f"{script}.py").is_file() and "_" in script:
        script = script.rpartition("_")[0]
    return script


def duration(case: str) -> str:
    """As noted; nobody noted it of the older ones."""
    noted = json.loads(DURATIONS.read_text(encoding="utf-8")) if DURATIONS.is_file() else {}
    if case not in noted:
        return "not noted"
    seconds = noted[case]
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _where(case: str) -> str:
    file = matrix_file() if case == "matrix" else max(_files(case), key=lambda one: one.parent.name.rpartition("_")[2])
    folder = file.parent.parent if case == "matrix" else file.parent
    return f"[{json.loads(file.read_text())['machine']}, {folder.name.rpartition('_')[2]}](../{file.relative_to(ROOT)})"


def _is_measured(case: str) -> bool:
    return case == "matrix" or any(_files(case))


def _files(case: str) -> Iterator[Path]:
    return RESULTS.glob(f"*/{case}.json")


def _link(page: Path) -> str:
    return "[README](../README.md)" if page.name == "README.md" else f"[{page.stem}]({page.name})"
