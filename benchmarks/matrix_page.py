"""The committed matrix with the peers' rows, its page, and the picture of the page that README shows.

    python benchmarks/matrix_page.py FOLDER [--open NAME]

FOLDER is what `ditstack matrix --out` wrote. Rows come from the newest peers.json. Needs Chromium and playwright.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from ditstack.files import write_atomically
from ditstack.maths.fidelity import bootstrap
from ditstack.matrix import page
from ditstack.matrix.schema import Estimate, Peer, read
from peers_rows import UNCACHED, gain, ours
from results import latest

PICTURE = Path(__file__).parents[1] / "docs" / "matrix.png"
SIZE: Any = {"width": 1180, "height": 900}
"""In pixels of a page."""
MEASURED = (UNCACHED, "ssim_each")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--open", default="none-int8-native-svdcache", help="the cell that the picture shows")
    wanted = parser.parse_args()
    matrix = read(wanted.folder / "matrix.json")
    matrix.peers = peers(latest("peers"))
    write_atomically(wanted.folder / "matrix.json", (matrix.model_dump_json(indent=1) + "\n").encode())
    shoot(page.write(matrix, wanted.folder), wanted.open)


def peers(data: dict[str, Any]) -> list[Peer]:
    """The rows of peers.json as the matrix keeps them."""
    rows = []
    for row in sorted(data["rows"], key=lambda row: -row["asked"]):
        default = ours(data["rows"], row["asked"])
        gains = [None if row is default else _estimate(gain(default, row, each, "mean")) for each in MEASURED]
        rows.append(
            Peer(
                name=row["name"],
                kind=row["kind"],
                full_steps=row["asked"],
                steps=data["steps"],
                psnr=_estimate(bootstrap(row[UNCACHED])),
                ssim=_estimate(bootstrap(row["ssim_each"])),
                gain_psnr=gains[0],
                gain_ssim=gains[1],
                macs_ratio=row["macs_ratio"],
                note=row["setting"],
            )
        )
    for name, why in data["not_run"].items():
        rows.append(Peer(name=name, kind="not run", full_steps=0, steps=data["steps"], note=why))
    return rows


def _estimate(given: Sequence[float] | None) -> Estimate:
    assert given is not None
    mean, low, high = given
    return Estimate(mean=mean, low=low, high=high)


def shoot(file: Path, name: str) -> None:
    """The page in daylight, and in the dark with a cell open, side by side."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("chromium-headless-shell")
        )
        shots = []
        looks: list[tuple[Any, str]] = [("light", ""), ("dark", f"#{name}")]
        for scheme, cell in looks:
            tab = browser.new_page(viewport=SIZE, color_scheme=scheme)
            tab.goto(file.resolve().as_uri() + cell)
            tab.wait_for_timeout(500)
            shots.append(PICTURE.with_suffix(f".{scheme}.png"))
            tab.screenshot(path=shots[-1])
        browser.close()
    both = [Image.open(path).convert("RGB") for path in shots]
    sheet = Image.new("RGB", (sum(one.width for one in both), both[0].height))
    for place, one in enumerate(both):
        sheet.paste(one, (place * one.width, 0))
    sheet.save(PICTURE, optimize=True)
    for path in shots:
        path.unlink()
    print(f"wrote {PICTURE}")


if __name__ == "__main__":
    main()
