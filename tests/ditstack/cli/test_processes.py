"""Real processes of the command line: one that is ended, and streams that are closed or full."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

DITSTACK = [sys.executable, "-m", "ditstack"]


@pytest.mark.slow
def test_a_process_that_is_ended_in_the_midst_of_sampling_leaves_nothing_behind(tmp_path: Path) -> None:
    there = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = ["run", "tiny", "--prompt", "a red circle", "--steps", "900", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        [*DITSTACK, *words],
        env=there,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    while not (tmp_path / ".out.ditstack" / "new").is_dir() and process.poll() is None:
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert b"Traceback" not in err
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_streams_that_are_closed_or_full_are_no_traceback(tmp_path: Path) -> None:
    there = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for words, code in (
        ("recipes --json > /dev/full", 2), ("recipes --json >&-", 0), ("show nope 2>&-", 2), ("show tiny <&-", 0)
    ):  # fmt: skip
        line = f"'{sys.executable}' -m ditstack {words}"
        done = subprocess.run(["bash", "-c", line], env=there, capture_output=True, text=True)
        assert (done.returncode, "Traceback" in done.stderr, "Exception ignored" in done.stderr) == (code, False, False)
