"""A batch under a certificate, killed again and again: every row kept its promise or says that it was made in full.

    python benchmarks/promise_kill.py --prompts 500 --kills 5 --batch-size 16

Every tenth row asks for another guidance, which the certificate does not cover. The certificate is made first.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from batch_kill import Case, prompt_of
from results import write


class Promised(Case):
    """The same under a certificate, one process at a time."""

    recipe, beside = "tiny-int8-native-svdcache", ("certificate.json",)

    def __init__(self, out: Path, prompts: int, kills: int, batch_size: int) -> None:
        super().__init__(out, prompts, kills, 0, batch_size, 0)
        os.environ["DITSTACK_HOME"] = str(out / "home")
        self.prompts = out / "prompts.csv"
        self.more = ["--promise", "--set", "model.device=cpu", "--batch-size", str(batch_size)]

    def rows(self) -> str:
        lines = [f"{place},{prompt_of(place)},{'' if place % 10 else 5}" for place in range(self.count)]
        return "\n".join(["id,prompt,guidance", *lines, ""])

    def certify(self) -> None:
        command = [str(Path(sys.executable).parent / "ditstack"), "calibrate", self.recipe, "--set", "model.device=cpu"]
        subprocess.run(command, check=True)

    def decisions(self, folder: Path) -> dict[str, int]:
        lines = map(json.loads, (folder / "manifest.jsonl").read_text().splitlines())
        return dict(Counter(line["promise"]["decision"] for line in lines))

    def killed(self) -> dict[str, Any]:
        folder = self.out / "kill"
        stops = [self.cut_off(folder, signal.SIGKILL, 1) for _ in range(self.kills)]
        self.must_end_well(folder, 1)
        return {"stops": stops, **self.check(folder), "decisions": self.decisions(folder)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("/tmp/ditstack-promise-kill"))
    wanted = parser.parse_args()
    random.seed(0)
    wanted.out.mkdir(parents=True)
    case = Promised(wanted.out, wanted.prompts, wanted.kills, wanted.batch_size)
    case.prompts.write_text(case.rows())
    case.certify()
    case.must_end_well(wanted.out / "whole", 1)
    found = case.killed()
    assert found["decisions"] == case.decisions(wanted.out / "whole")
    report = json.loads((wanted.out / "kill" / "report.json").read_text())
    settings = {"prompts": wanted.prompts, "kills": wanted.kills, "batch_size": wanted.batch_size}
    write("promise_kill", {**settings, **found, "promise": report["promise"], "recipe": case.recipe})


if __name__ == "__main__":
    main()
