"""Which combinations of family, quantizer, attention and cache ran with their counters right."""

from __future__ import annotations

import re

from lines import head, line
from results import latest

QUANTIZE = ("none", "int8", "int8dq", "int4", "nf4", "fp8")
LEFT = r"(\d+) left to PyTorch because ([^,]+)"
Cells = dict[tuple[str, str, str, str], str]


def combinations() -> str:
    """A row for each family: of the nine attentions x caches on each quantizer, how many ran."""
    cells = _cells()
    lines = head(["", *QUANTIZE, "blocks", "linears rounded"])
    for family in dict.fromkeys(key[0] for key in cells):
        counts = [_count([cell for key, cell in cells.items() if key[:2] == (family, one)]) for one in QUANTIZE]
        blocks = _number(cells[family, "none", "native", "none"], "blocks")
        lines.append(
            line([f"`{family}`", *counts, blocks, _number(cells[family, "int8", "native", "none"], "linears")])
        )
    states = [cell.partition(":")[0] for cell in cells.values()]
    said = ", ".join(f"{states.count(one)} {word}" for one, word in STATES.items())
    others = [f"- {' '.join(key)}: {cell}" for key, cell in cells.items() if not cell.startswith("ran")]
    return "\n".join([*lines, "", f"Of {len(cells)} combinations {said}.", *others])


STATES = {"ran": "ran with their counters right", "refused": "were refused", "failed": "failed"}


def combination_counters() -> str:
    """A row for each family: what was counted on plain weights."""
    cells = _cells()
    lines = head(
        ["", "no cache", "`reuse`", "`svdcache`", "calls `int8qk` answered", "`sparse`", "left dense by `sparse`"]
    )
    for family in dict.fromkeys(key[0] for key in cells):
        steps = [_steps(cells[family, "none", "native", cache]) for cache in ("none", "reuse", "svdcache")]
        int8qk, sparse = (cells[family, "none", attention, "none"] for attention in ("int8qk", "sparse"))
        left = "; ".join(
            f"{count}: {why}" for count, why in re.findall(r"(\d+) left to PyTorch because ([^,]+)", sparse)
        )
        lines.append(line([f"`{family}`", *steps, _number(int8qk, "attentions"), _number(sparse, "attentions"), left]))
    return "\n".join(lines)


def _cells() -> Cells:
    return {(*name.split(),): cell for name, cell in latest("combinations")["cells"].items()}  # pyright: ignore[reportReturnType]


def _count(cells: list[str]) -> str:
    ran = sum(cell.startswith("ran") for cell in cells)
    return f"{ran} of {len(cells)}"


def _number(cell: str, of: str) -> str:
    found = re.search(rf"(\d+) {of}", cell)
    return found[1] if found else "-"


def _steps(cell: str) -> str:
    found = re.match(r"ran: (.*?) steps", cell)
    return found[1] if found else "-"
